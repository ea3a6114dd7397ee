"""Python imports this by itself where its folder is on PYTHONPATH: the process is killed at the first call to AWS that is new.

A changing call has been carried out and its answer is lost, a reading one has been answered: as when a laptop dies. KILLED_AT is the
file that holds the list of calls, a name a line.
"""

import json
import os
import signal
from pathlib import Path


def name(operation: str, request: dict) -> str:
    """The call's name, the same each time: what differs from run to run is left out."""
    if operation == "SendCommand":
        return f"SendCommand {json.loads(request['body'])['Comment'].split()[1]}"
    if not operation.endswith("Object"):
        return operation
    folder, *rest = request["url_path"].split("/")[2:] or [""]
    return f"{operation} {folder} {rest[-1] if folder == 'runs' else ''}".strip()


if "KILLED_AT" in os.environ:
    from botocore.endpoint import Endpoint

    usual, place = Endpoint.make_request, Path(os.environ["KILLED_AT"])

    def make_request(self, operation_model, request_dict):
        answer = usual(self, operation_model, request_dict)
        known, this = place.read_text().splitlines(), name(operation_model.name, request_dict)
        if this not in known:
            place.write_text("\n".join([*known, this]))
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    Endpoint.make_request = make_request
