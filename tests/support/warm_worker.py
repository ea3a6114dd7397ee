"""What a whole test run imports, loaded once, and forked for each of xdist's workers: python tests/support/warm_worker.py SOCKET

Every worker collects every test, and so imports torch, transformers, peft and AWS's clients: five seconds of a core, four times.
It is otherwise as execnet starts it: a process of its own, with the same arguments, environment and pipes.
"""

import importlib
import logging
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
# None with a plugin for pytest among them, which is to be imported by pytest.
LIBRARIES = (
    "torch",
    "transformers.modeling_utils",
    "transformers.generation",
    "peft",
    "matplotlib.pyplot",
    "moto.server",
    "boto3",
    "botocore.waiter",
    "rich.console",
    "werkzeug.serving",
)


def main(words: list[str]) -> None:
    sys.argv = ["-c"]
    exec(words[-1], {"__name__": "__main__"})


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it while it is imported
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it asks for a package, as in trainer/__main__.py
    for name in LIBRARIES:
        importlib.import_module(name)
    from twin import forkserver

    threading.Thread(target=lambda: os.read(0, 1) or os._exit(0), daemon=True).start()  # whoever started it is gone
    forkserver.serve(Path(sys.argv[1]), main)
