"""`inv`, loaded once for many tests and forked for each command: python tests/support/warm_inv.py SOCKET

A command then takes half a second less, and is otherwise as `python -m invoke` started in this tree's root: a process of its own,
with its own arguments and environment, that may be interrupted or killed. What reads the environment while it is imported
(huggingface_hub) is left for the command itself.
"""

import os
import runpy
import sys
import threading
from pathlib import Path

import loaded

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
LIBRARIES = (
    "anyio",
    "boto3",
    "encodings.idna",
    "h11",
    "httpcore2",
    "httpx2",
    "hydra",
    "invoke.main",
    "jinja2.sandbox",
    "rich._emoji_codes",
    "rich.live",
    "rich.table",
    "tokenizers",
    "tqdm",
    "trainer.record.compare",
    "trainer.estimate.fit",
    "trainer.record.leaderboard",
    "trainer.rows.splits",
    "truststore",
    "twin.world",
    "tasks",
)
ROOMS = ("cost.ledger", "cost.offers", "doctor.diagnose", "plan.verbs", "sweep.command", "view.show", "view.status")
SERVICES = ("ec2", "ssm", "s3", "sts", "ecr", "scheduler", "secretsmanager", "pricing", "iam", "cloudformation", "logs")


def prepare() -> None:
    """All that most verbs import, and the descriptions of the services that they talk to."""
    import importlib

    loaded.descriptions()
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in ROOMS:
        importlib.import_module(f"remote.{name}")
    import boto3

    from conf import load

    loaded.settings()
    load.load(["cloud=twin"])  # Hydra's grammar learns from the first words that it reads
    load.load(["cloud=twin", "experiment=smoke"])  # as nearly all tests have it
    for service in SERVICES:
        boto3.Session("none", "none", region_name="us-east-1").client(service)


def main(words: list[str]) -> None:
    if "KILLED_AT" in os.environ:
        runpy.run_path(str(ROOT / "tests/support/killed/sitecustomize.py"))
    if "READS" in os.environ:
        runpy.run_path(str(ROOT / "tests/support/reads.py"))["install"]()
    from invoke.main import program

    sys.argv = ["inv", *words]
    program.run()


if __name__ == "__main__":
    prepare()
    from twin import forkserver

    assert "huggingface_hub" not in sys.modules
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(0), daemon=True).start()  # the process that started it is gone
    forkserver.serve(Path(sys.argv[1]), main)
