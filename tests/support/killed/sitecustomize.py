"""Python imports this by itself where its folder is on PYTHONPATH: the process is killed at the first call to AWS or the Hub that is new.

A changing call has been carried out and its answer is lost, a reading one has been answered: as when a laptop dies. Before a call of
AWS it has just ended another one; before one that changes the Hub it is killed, too. KILLED_AT is the file that holds the list of calls,
a name a line.
"""

import json
import os
import re
import signal
import threading
from pathlib import Path

NAMED = re.compile(r"\b([0-9a-f]{40,64}|\d{8}-\d{6}-[\w-]+)\b")  # a commit, a file by its hash, a run


def name(operation: str, request: dict) -> str:
    """The call's name, the same each time: what differs from run to run is left out."""
    if operation == "SendCommand":
        return f"SendCommand {json.loads(request['body'])['Comment'].split()[1]}"
    if not operation.endswith("Object"):
        return operation
    folder, *rest = request["url_path"].split("/")[2:] or [""]
    return f"{operation} {folder} {rest[-1] if folder == 'runs' else ''}".strip()


def name_on_the_hub(method: str, path: str) -> str:
    """The same for the Hub: `POST */commit/main` is a commit to whatever repository it is."""
    words = path.strip("/").removeprefix("api/models/").split("/")
    if words[0] != "api" and len(words) > 1:
        words[:2] = "*"  # OWNER/NAME
    if "resolve" in words:
        words = words[:2]  # whatever file
    return NAMED.sub("*", f"{method} {'/'.join(words)}")


if "KILLED_AT" in os.environ:
    import httpx2
    from botocore.endpoint import Endpoint

    place, one = Path(os.environ["KILLED_AT"]), threading.Lock()
    ask_aws, ask_hub = Endpoint.make_request, httpx2.Client.send

    def done(this: str) -> None:
        with one:
            known = place.read_text().splitlines()
            if this not in known:
                place.write_text("\n".join([*known, this]))
                os.kill(os.getpid(), signal.SIGKILL)

    def make_request(self, operation_model, request_dict):
        answer = ask_aws(self, operation_model, request_dict)
        done(name(operation_model.name, request_dict))
        return answer

    def send(self, request, **options):
        this = name_on_the_hub(request.method, request.url.path)
        if request.method not in ("GET", "HEAD"):
            done(f"before {this}")
        answer = ask_hub(self, request, **options)
        done(this)
        return answer

    Endpoint.make_request, httpx2.Client.send = make_request, send
