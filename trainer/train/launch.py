"""One run by several processes: torchrun of this machine, one process a GPU.

They meet in a folder and talk over the loopback interface, so nothing listens to the network. The one that started them only waits: it
passes a stop on, and writes why the run failed.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from conf.problem import Problem, of_reason
from conf.schema import Train
from trainer.model.distributed import RENDEZVOUS
from trainer.record.failure import ENDED_OUTSIDE
from trainer.record.record import Record, sealed

WAIT = 100  # seconds that the processes have to save after a stop: docker ends the container after 120
DEVICES = ("nvidia[0-9]*", "dxg")  # in /dev, where there is a GPU; the latter of WSL
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
AGAIN = "start it again, as `inv train` does: it goes on at its last checkpoint"


def processes(train: Train) -> int:
    """How many processes train a run on this machine."""
    if train.processes == 1:
        return 1
    gpus = _gpus()
    if train.processes == "auto":
        return max(gpus, 1)
    if gpus and train.processes > gpus:
        raise Problem(
            f"train.processes is {train.processes}, and this machine has {gpus} GPUs", "one process a GPU: `train.processes=auto`"
        )
    return train.processes


def _gpus() -> int:
    if not any(next(Path("/dev").glob(pattern), None) for pattern in DEVICES):
        return 0
    import torch

    return torch.cuda.device_count()


def run(folder: Path, sha256: str | None, count: int) -> None:
    """Train the run in `folder` by `count` processes; a Problem, also in its state, where one of them fails."""
    print(f"{count} processes train together", flush=True)
    with TemporaryDirectory(prefix="trainer-") as meeting:
        codes = _torchrun(["-m", "trainer", "run", str(folder), *([sha256] if sha256 else [])], count, meeting)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rest takes no time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not codes or sealed(folder):
            return
        problem = _problem(Path(meeting), codes, count)
    Record(folder).phase("failed", problem.reason, problem.what, problem.hint)
    raise problem


def _torchrun(words: list[str], count: int, meeting: str) -> dict[int, int]:
    """The exit codes of processes that failed, by their rank, the first one first."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # torchrun's own words about the end of a process: the run's state says it
    os.environ |= {RENDEZVOUS: meeting, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else a store listens on every interface
    os.environ |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // count, 1)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="run",
        rdzv_backend="c10d",
        rdzv_endpoint=str(Path(meeting, "torchrun")),
        rdzv_configs={"store_type": "file"},
        logs_specs=DefaultLogsSpecs(log_dir=meeting),
        max_restarts=0,
        monitor_interval=0.2,
        shutdown_timeout=WAIT,
    )
    try:
        elastic_launch(config, sys.executable)(*words)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except (SignalException, KeyboardInterrupt):
        return {0: -signal.SIGTERM}
    return {}


def _problem(meeting: Path, codes: dict[int, int], count: int) -> Problem:
    """Why the run failed: what a process says of itself, but for what follows from the end of another one."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(meeting.glob("failed-*.json"))]
    problems = [of_reason(report["what"], report["hint"], report["reason"]) for report in reports]
    own = [problem for problem in problems if problem.reason not in ("killed", "process_lost")]
    if own:
        return own[0]
    asked = (signal.SIGTERM, signal.SIGINT)
    for rank, code in codes.items():  # the first to end comes first; it may be the reason for the others
        if code < 0 and -code not in asked:
            return Problem(f"process {rank} of {count} was ended by {signal.Signals(-code).name}", AGAIN, "process_lost")
    killed = [problem for problem in problems if problem.reason == "killed"]
    return (killed or problems or [Problem("the trainer was ended from outside", ENDED_OUTSIDE, "killed")])[0]
