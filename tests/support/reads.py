"""What remote/ reads from AWS's answers: each answer notes it, where READS names a folder for the notes.

    python tests/support/reads.py           # runs the tests that call AWS, then writes reads.json and docs/ANSWERS.md: half an hour
    python tests/support/reads.py FOLDER    # adds notes that are there: READS=FOLDER python -m pytest tests/...

So the table of what we read is made by reading, not by hand; only what the box's scripts ask for by `--query` is taken from their text.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READS, PAGE, SCRIPTS = ROOT / "tests/support/reads.json", ROOT / "docs/ANSWERS.md", ROOT / "remote/scripts"
TESTS = [
    "tests",
    "--ignore=tests/unit/trainer",
    "--ignore=tests/unit/twin",
    "--ignore=tests/unit/data",
    "-m",
    "not system and not gpu and not aws",
]
QUERY = re.compile(r"\baws ([a-z0-9-]+) ([a-z0-9-]+)\b[^|;)]*?--query[ =]['\"]?([A-Za-z.]+)")
MUST, MAY = "must", "may"  # an answer without it: ends in a KeyError; is borne


class Answer(dict):
    """One structure of an answer, or all of it."""

    def __init__(self, content: dict, operation: str, path: str):
        super().__init__(content)
        self.operation, self.path = operation, path

    def __getitem__(self, name):
        self.note(name, MUST)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.note(name, MAY)
        return super().get(name, default)

    def __contains__(self, name):
        self.note(name, MAY)
        return super().__contains__(name)

    def pop(self, name, *default):
        self.note(name, MAY if default else MUST)
        return super().pop(name, *default)

    def __or__(self, other):
        return Answer(super().__or__(other), self.operation, self.path)

    def note(self, name: str, how: str) -> None:
        code = sys._getframe(2).f_code
        file = Path(code.co_filename)
        if file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in ("remote", "tasks.py"):
            place = f"{file.relative_to(ROOT)}:{code.co_qualname.split('.<')[0]}"
            write(self.operation, f"{self.path}.{name}".strip("."), how, place)


@cache
def write(*read: str) -> None:
    with Path(os.environ["READS"], f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(read) + "\n")


def noting(value, shape, operation: str, path: str = ""):
    """The same value; each structure in it notes what is read from it."""
    if shape.type_name == "list" and isinstance(value, list):
        return [noting(item, shape.member, operation, path) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: noting(item, shape.value, operation, path) for key, item in value.items()}
    if shape.type_name == "structure" and isinstance(value, dict):
        below = {name: f"{path}.{name}".strip(".") for name in shape.members if name in value}
        return Answer(value | {name: noting(value[name], shape.members[name], operation, below[name]) for name in below}, operation, path)
    return value


def install() -> None:
    """Every client of this process answers so from now on."""
    from botocore.client import BaseClient

    call = BaseClient._make_api_call

    def noted(self, name, parameters):
        answer, model = call(self, name, parameters), self.meta.service_model
        shape = model.operation_model(name).output_shape
        write(f"{model.signing_name}.{name}", "", "called", "")
        return noting(answer, shape, f"{model.signing_name}.{name}") if shape else answer

    BaseClient._make_api_call = noted


Reads = dict[str, dict[str, dict[str, list[str]]]]  # by operation and member: how it is read, and where


def gathered(folder: Path) -> Reads:
    """What the notes say; what they do not say of botocore's own part of each answer."""
    reads: Reads = {}
    notes = {tuple(json.loads(line)) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()}
    for operation, member, how, place in sorted(notes):
        members = reads.setdefault(operation, {})
        if how in (MUST, MAY) and not member.startswith("ResponseMetadata"):
            members.setdefault(member, {}).setdefault(how, []).append(place)
    return reads


def of_scripts() -> Reads:
    """What the box's scripts take from answers by `--query`."""
    from botocore import xform_name

    from twin.aws.documented import service_models

    reads: Reads = {}
    for script in sorted(SCRIPTS.glob("*.sh")):
        for service, command, member in QUERY.findall(script.read_text().replace("\\\n", " ")):
            known = service_models.service(service)
            operation = next(name for name in known.operation_names if xform_name(name, "-") == command)
            place = str(script.relative_to(ROOT))
            reads.setdefault(f"{known.signing_name}.{operation}", {}).setdefault(member, {}).setdefault(MUST, []).append(place)
    return reads


def merged(*every: Reads) -> Reads:
    combined: Reads = {}
    for reads in every:
        for operation, members in reads.items():
            for member, ways in members.items():
                for how, places in ways.items():
                    known = combined.setdefault(operation, {}).setdefault(member, {}).setdefault(how, [])
                    known += [place for place in places if place not in known]
            combined.setdefault(operation, {})
    return dict(sorted(combined.items()))


def documented_as(operation: str, member: str) -> str:
    """What AWS says of the member: `always`, `at times`, or `never`."""
    from twin.aws.documented import documented

    known = documented.operation(*operation.split(".", 1))
    place = known and known.answer
    *above, last = member.split(".")
    for name in above:
        place = place and name in place.shape.members and place.member(name)
    if not place or last not in place.shape.members or place.member(last) is None:
        return "never"
    return "at times" if place.optional(last) else "always"


def faults(reads: Reads, documented: str, *ways: str) -> list[str]:
    """Reads, of these ways, of members that AWS documents like that."""
    return [
        f"`{operation}` {member}: {', '.join(places)}"
        for operation, members in reads.items()
        for member, how in members.items()
        if documented_as(operation, member) == documented
        for way, places in how.items()
        if way in ways
    ]


def page(reads: Reads) -> str:
    from twin.aws.documented import documented

    rows, unproven = [], []
    for operation, members in reads.items():
        known = documented.operation(*operation.split(".", 1))
        sources = list(known.sources) if known else []
        if known and not sources:
            unproven.append(operation)
        shown = "<br>".join(sources) or ("none" if known else "it answers nothing")
        ways = {how: ", ".join(f"`{member}`" for member in deepest([one for one in members if how in members[one]])) for how in (MUST, MAY)}
        rows.append(f"| `{operation}` | {shown} | {ways[MUST]} | {ways[MAY]} |")
    vetted = [
        f"| `{operation}` | `{member}` | {'always' if kind == 'always' else 'at times'} | {source} |"
        for kind, operations in documented.vetted().items()
        for operation, members in operations.items()
        for member, source in members.items()
    ]
    return TEMPLATE.format(
        rows="\n".join(rows),
        vetted="\n".join(vetted),
        never=listed(faults(reads, "never", MUST, MAY)),
        at_times=listed(faults(reads, "at times", MUST)),
        unproven=listed([f"`{operation}`: {', '.join(reads[operation]) or 'nothing is read'}" for operation in unproven]),
        shown=len(rows) - len(unproven),
        every=len(rows),
    )


def deepest(members: list[str]) -> list[str]:
    """Without those that are only on the way to another."""
    return [one for one in members if not any(other.startswith(f"{one}.") for other in members)]


def listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "None."


TEMPLATE = """# What AWS answers, and what is read of it

`python tests/support/reads.py` writes this page, from answers that note what is read of them while the tests run; a test holds it to
the code. The emulated account answers each operation with what AWS documents for it and no more: what an example of botocore,
of the AWS CLI or of a real account (`twin/aws/documented/recorded`)
shows, without what the service model says is "not returned"; where no example shows the operation, as
its service model says, and so for what callers send themselves and get back (rules, tags, policies). Of a member that AWS leaves out at
times nothing is left where it is empty.

{shown} of {every} operations that we call are shown by an example, or answer nothing.

| operation | example | read as always there | read as there at times |
|---|---|---|---|
{rows}

## Read, though AWS does not document that the operation returns it
{never}

## Read as always there, though AWS leaves it out at times
{at_times}

## Unproven: no example shows the operation
{unproven}

## Vouched for by another source than an example of the operation
| operation | member | returned | source |
|---|---|---|---|
{vetted}
"""


def main(words: list[str]) -> int:
    sys.path.insert(0, str(ROOT))
    code, folder = 0, Path(words[0]) if words else Path(tempfile.mkdtemp())
    if not words:
        code = subprocess.run([sys.executable, "-m", "pytest", *TESTS], cwd=ROOT, env=os.environ | {"READS": str(folder)}).returncode
    reads = merged(json.loads(READS.read_text()) if words else {}, gathered(folder), of_scripts())
    READS.write_text(json.dumps(reads, indent=1) + "\n")
    PAGE.write_text(page(reads))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
