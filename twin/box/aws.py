"""The `aws` of a box: the unmodified AWS CLI, loaded once while the box boots, and forked for every call of a script.

python twin/box/aws.py --serve SOCKET       # a process of the box
python twin/box/aws.py SOCKET WORD...       # what a script calls `aws`
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))  # started by its path, in a Python that knows no other place of ours

import forkserver

SERVICES = ("s3", "logs", "ecr", "ec2", "secretsmanager")  # what the scripts talk to: their descriptions take longest to read


def serve(place: str) -> None:
    from pathlib import Path

    from awscli.clidriver import create_clidriver

    driver = create_clidriver()
    for service in SERVICES:
        driver.session.create_client(service, region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
    forkserver.serve(Path(place), driver.main)


def call(place: str, words: list[str]) -> int:
    """The AWS CLI's exit code; while nobody serves yet, its own process takes over."""
    try:
        return forkserver.call(place, words)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-I", "-m", "awscli", *words])


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[1], sys.argv[2:]))
