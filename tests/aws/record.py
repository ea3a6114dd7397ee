"""`inv`, with what AWS answers written down as it was shaped, and nothing of whose it was.

    RECORD=FOLDER python tests/aws/record.py VERB ...

Of a value only that is kept which the service model itself lists (an enumeration), a truth value, or a small number. Every other text is
`text`, every moment is the same one, the keys of a map are `key`: no account, ARN, address, key or secret can be in a file, whatever the
account holds. `twin/aws/documented/examples.py` reads the files: what a real account has answered is documented.
"""

import json
import os
import re
import sys
import threading
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT, KEY, MOMENT = "text", "key", "2000-01-01T00:00:00Z"
LARGEST = 10**7  # a longer number could be an account's
MOST = 20  # answers of one operation, and items of one list
CODE = re.compile(r"[A-Za-z]+(\.[A-Za-z]+)*")
IDENTITY = re.compile(r"\d{9,}|arn:|\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]|\b\d+\.\d+\.\d+\.\d+\b|\bhf_\w|[0-9a-f]{17}|@")
LOCK = threading.Lock()


def install(folder: Path) -> None:
    """Every client that this process makes from now on writes its answers down in the folder."""
    from botocore.session import Session

    folder.mkdir(parents=True, exist_ok=True)
    create = Session.create_client

    def created(self, *args, **options):
        client = create(self, *args, **options)
        client.meta.events.register_last("after-call.*.*", partial(note, folder))
        return client

    Session.create_client = created


def note(folder: Path, http_response, parsed: dict, model, **_) -> None:
    name = f"{model.service_model.signing_name}.{model.name}"
    if http_response.status_code < 300 and model.output_shape:
        add(folder / f"{name}.json", shape_of(parsed, model.output_shape))
    elif http_response.status_code >= 300 and CODE.fullmatch(code := parsed.get("Error", {}).get("Code", "")):
        add(folder / "refusals.json", {"operation": name, "code": code, "status": http_response.status_code})


def add(path: Path, answer: dict) -> None:
    """The file has the answer once, and holds no more than there is room for."""
    with LOCK:
        known = json.loads(path.read_text()) if path.exists() else []
        if answer in known or len(known) >= MOST:
            return
        text = json.dumps([*known, answer], indent=1) + "\n"
        if found := IDENTITY.search(text):
            raise AssertionError(f"{path.name} would hold {found[0][:4]}..., which looks like somebody's")
        temporary = path.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(path)


def shape_of(value, shape):
    """The value with no more in it than how it is shaped."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        return {name: shape_of(value[name], member) for name, member in shape.members.items() if name in value}
    if kind == "list":
        return once(shape_of(item, shape.member) for item in value)
    if kind == "map":
        return dict(zip([KEY], once(shape_of(item, shape.value) for item in value.values()), strict=False))
    if kind == "boolean":
        return value
    if kind in ("integer", "long", "float", "double"):
        return value if abs(value) < LARGEST else 0
    if kind == "timestamp":
        return MOMENT
    return value if value in getattr(shape, "enum", ()) or value == "" else TEXT


def once(items) -> list:
    found = []
    for item in items:
        if item not in found and len(found) < MOST:
            found.append(item)
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    install(Path(os.environ["RECORD"]))
    from invoke.main import program

    sys.argv[0] = "inv"
    program.run()
