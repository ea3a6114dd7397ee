"""Python imports this by itself where its folder is on PYTHONPATH: the process is killed after its n-th call that changes something in AWS.

The call has been carried out and its answer is lost, as when a laptop dies. KILL_AFTER is n; KILLED_AT is a file that gets the call's name.
"""

import itertools
import os
import signal
from pathlib import Path

READS = ("Get", "Describe", "List", "Head", "Lookup", "BatchGet")

if "KILL_AFTER" in os.environ:
    from botocore.endpoint import Endpoint

    usual, count, last = Endpoint.make_request, itertools.count(1), int(os.environ["KILL_AFTER"])

    def make_request(self, operation_model, request_dict):
        answer = usual(self, operation_model, request_dict)
        if not operation_model.name.startswith(READS) and next(count) == last:
            Path(os.environ["KILLED_AT"]).write_text(operation_model.name)
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    Endpoint.make_request = make_request
