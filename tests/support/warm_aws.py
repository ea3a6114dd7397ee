"""The unmodified AWS CLI, loaded once for many tests and forked for each call, as on a box: python tests/support/warm_aws.py SOCKET"""

import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "twin/box"))
import aws

if __name__ == "__main__":
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(0), daemon=True).start()  # the process that started it is gone
    aws.serve(sys.argv[1])
