"""Which lines of remote/scripts have run, of those that can: python tests/support/bash_coverage.py FOLDER

FOLDER is what TWIN_TRACE named while tests ran: a folder for each script that a box ran, with its text and bash's own trace of it.
"""

import base64
import gzip
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from remote.plan.script import SCRIPTS, body

# Words that bash does not trace, and a case's patterns: a line of these alone is no command. What a loop reads runs with the loop.
SILENT = re.compile(r"(\}|fi|done( < <\(.*\))?|else|esac|;;|then|do|\)|[\w|*\"{ .-]+\)( ;;)?|\w+\(\) \{)( ?#.*)?")


def logical(script: str) -> list[tuple[int, int]]:
    """First and last number of each command's lines; a line that ends in \\, |, && or || goes on."""
    lines, ranges, number = (SCRIPTS / f"{script}.sh").read_text().splitlines(), [], 0
    end = None
    while number < len(lines):
        first, text = number, lines[number].strip()
        number += 1
        if end is not None:
            end = None if text == end else end
            continue
        if not text or text.startswith("#") or SILENT.fullmatch(text):
            continue
        while re.search(r"(\\|\||&&)$", lines[number - 1]) and number < len(lines):
            number += 1
        if here := re.search(r"<<-?'?(\w+)'?", text):
            end = here[1]
        ranges.append((first + 1, number))
    return ranges


def ran(folder: Path) -> set[tuple[str, int]]:
    """Script and line of everything that one traced script has run."""
    text = (folder / "script").read_text()
    if packed := re.search(r"<<'END' .*\n([A-Za-z0-9+/=]+)\nEND\n", text):
        text = gzip.decompress(base64.b64decode(packed[1])).decode()
    text += "\n"
    starts = {path.stem: text[: text.index(part)].count("\n") for path in SCRIPTS.glob("*.sh") if (part := body(path.stem)) in text}
    lines_run = set()
    for line in (folder / "trace").read_text(errors="replace").splitlines():
        if (match := re.match(r"\++@(\d+)@ ", line)) and (above := [name for name in starts if starts[name] < int(match[1])]):
            script = max(above, key=starts.get)
            lines_run.add((script, int(match[1]) - starts[script] + 1))  # body() leaves the first line out
    return lines_run


def main(folder: Path) -> None:
    hit = set().union(*(ran(path.parent) for path in folder.glob("*/trace")))
    total = covered = 0
    for script in sorted(path.stem for path in SCRIPTS.glob("*.sh")):
        commands = logical(script)
        missed = [first for first, last in commands if not any((script, line) in hit for line in range(first, last + 1))]
        total, covered = total + len(commands), covered + len(commands) - len(missed)
        print(f"{script + '.sh':14} {100 * (1 - len(missed) / len(commands)):4.0f} %  missed: {' '.join(map(str, missed)) or '-'}")
    print(f"{'all':14} {100 * covered / total:4.0f} %  {covered} of {total} commands")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
