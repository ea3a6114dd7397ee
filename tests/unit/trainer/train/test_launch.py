"""The real command starts its own processes, which make one run. What they compute is in test_distributed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from conf import schema
from conf.problem import Problem
from conf.text.quoting import quoted
from trainer.files import read_json_lines
from trainer.model.distributed import ProcessGroup
from trainer.record import record
from trainer.train import launch

WORDS = ["experiment=smoke", "quant=none", "train.report_to=[]", "data.eval_rows=2", "train.processes=2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
LIMIT = 900  # seconds


class Command:
    """`python -m trainer` with two processes."""

    def __init__(self, tiny: Path, place: Path, *words: str):
        self.folder, self.log = place / "runs/team", place / "printed"
        words = (f"model.id={quoted(tiny)}", f"runs={quoted(place / 'runs')}", "run_id=team", *words)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer", *WORDS, *words], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
            )

    def events(self, kind: str) -> list[dict]:
        path = self.folder / "events.jsonl"
        return [event for event in read_json_lines(path) if event["event"] == kind] if path.exists() else []

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + LIMIT
        while not self.saved(step):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def saved(self, step: int) -> bool:
        return any(int(path.parent.name.removeprefix("step-")) >= step for path in self.folder.glob("checkpoints/step-*/COMPLETE"))

    def trainers(self) -> dict[int, psutil.Process]:
        """Its processes, by their rank."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error, KeyError):  # it has ended, or is torchrun's own
                found[int(child.environ()["RANK"])] = child
        return found

    def end(self) -> tuple[int, str]:
        code = self.process.wait(LIMIT)
        return code, self.log.read_text()

    def state(self) -> dict:
        return json.loads((self.folder / "state.json").read_text())


@pytest.fixture
def start(tiny, tmp_path):
    """Starts the command in the same place, again and again; what a failed test leaves is ended."""
    started = []

    def make(*words: str) -> Command:
        started.append(Command(tiny, tmp_path, *words))
        return started[-1]

    yield make
    for command in started:
        command.process.kill()
        command.process.wait()


@pytest.mark.slow
def test_two_processes_make_one_run_and_nothing_listens_to_the_network(start):
    command, heard = start("train.steps=2"), []
    most = 0
    while command.process.poll() is None:
        most = max(most, len(command.trainers()))
        for each in [psutil.Process(command.process.pid), *command.trainers().values()]:
            try:
                heard += [one.laddr.ip for one in each.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            except psutil.Error:
                continue
        time.sleep(0.1)
    code, printed = command.end()
    assert code == 0, printed
    assert most == 2, "the command did not start two trainers"
    assert set(heard) == {"127.0.0.1"}, "gloo's own sockets, on the loopback interface"
    assert printed.count("run folder: ") == printed.count("step 2/2 ") == 1, "each thing is told once"
    assert record.verify(command.folder)["run_id"] == "team"
    assert [event["step"] for event in command.events("step")] == [1, 2]
    assert [event["phase"] for event in command.events("phase")] == ["running", "evaluating"]
    assert command.state()["phase"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_run_with_a_reason_and_the_run_goes_on_from_its_checkpoint(rank, start):
    words = ("train.steps=400", "train.save_steps=1", "train.eval_steps=1000", "train.save_total_limit=1")
    command = start(*words)
    command.wait_for_step(2)
    others = command.trainers()
    others[rank].kill()
    code, printed = command.end()
    assert code == 1
    assert f"error: process {rank} of 2 was ended by SIGKILL\n\nhint: start it again, as `inv train` does" in printed
    state = command.state()
    assert (state["phase"], state["reason"]) == ("failed", "process_lost")
    assert state["evidence"] == f"process {rank} of 2 was ended by SIGKILL"
    assert not any(each.is_running() for each in others.values()), "the other one went on"
    assert command.saved(2)
    again = start(*words)
    again.wait_for_step(max(event["step"] for event in command.events("step")) + 1)
    again.process.send_signal(signal.SIGTERM)
    code, printed = again.end()
    assert code == 1 and "going on after step " in printed
    steps = [event["step"] for event in again.events("step")]
    assert sorted(set(steps)) == list(range(1, steps[-1] + 1)), "no step is missing"


@pytest.mark.slow
def test_a_stop_is_passed_on_and_the_step_is_saved(start):
    command = start("train.steps=400", "train.save_steps=1000", "train.eval_steps=1000")
    while len(command.events("step")) < 3:
        assert command.process.poll() is None, command.log.read_text()
        time.sleep(0.05)
    command.process.send_signal(signal.SIGTERM)
    code, printed = command.end()
    last = command.events("step")[-1]["step"]
    assert code == 1 and printed.count(f"error: the trainer was ended from outside after step {last} of 400, which is saved") == 1
    assert (command.state()["phase"], command.state()["reason"]) == ("failed", "killed")
    assert command.saved(last)


@pytest.mark.slow
def test_trainers_whose_starter_is_killed_end_too(start):
    command = start("train.steps=400", "train.save_steps=1", "train.eval_steps=1000")
    command.wait_for_step(1)
    trainers = command.trainers()
    command.process.kill()
    _, alive = psutil.wait_procs(trainers.values(), timeout=60)
    assert not alive, "they would write into the run beside the next attempt"


@pytest.mark.slow
def test_what_stops_every_process_is_told_once(start):
    command = start("train.lr=1e-3", "data.max_length=20")
    code, printed = command.end()
    assert code == 1
    assert printed.count("error: ") == 1 and "data.max_length" in printed
    assert command.state()["reason"] == "bad_data"


def _recipe(processes) -> schema.Train:
    train = schema.Train.__new__(schema.Train)
    train.processes = processes
    return train


@pytest.mark.parametrize(("gpus", "asked", "count"), [(0, "auto", 1), (4, "auto", 4), (4, 2, 2), (0, 2, 2), (4, 1, 1)])
def test_auto_is_one_process_a_gpu(gpus, asked, count, monkeypatch):
    monkeypatch.setattr(launch, "_gpus", lambda: gpus)
    assert launch.processes(_recipe(asked)) == count


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(launch, "_gpus", lambda: 2)
    with pytest.raises(Problem, match="train.processes is 4, and this machine has 2 GPUs"):
        launch.processes(_recipe(4))


def test_another_launcher_is_refused_with_the_setting_that_takes_its_place(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Problem, match="another launcher has started this one") as caught:
        ProcessGroup()
    assert "train.processes=2" in caught.value.hint


def failed(meeting: Path, rank: int, reason: str) -> None:
    (meeting / f"failed-{rank}.json").write_text(json.dumps({"what": f"of {rank}", "hint": "mend it", "reason": reason}))


@pytest.mark.parametrize(
    ("reports", "codes", "what", "reason"),
    [
        ({1: "out_of_memory"}, {1: 1, 0: -9}, "of 1", "out_of_memory"),  # the main process was waiting for it, and is ended
        ({0: "process_lost", 1: "out_of_memory"}, {0: 1, 1: 1}, "of 1", "out_of_memory"),
        ({0: "process_lost"}, {0: 1, 1: -9}, "process 1 of 2 was ended by SIGKILL", "process_lost"),
        ({0: "killed"}, {1: -11, 0: 1}, "process 1 of 2 was ended by SIGSEGV", "process_lost"),
        ({0: "killed", 1: "killed"}, {0: -15}, "of 0", "killed"),
        ({}, {0: -15}, "the trainer was ended from outside", "killed"),
    ],
)
def test_the_reason_of_a_run_is_what_came_first_not_what_followed_from_it(reports, codes, what, reason, tmp_path):
    for rank, told in reports.items():
        failed(tmp_path, rank, told)
    problem = launch._problem(tmp_path, codes, 2)
    assert (problem.what, problem.reason) == (what, reason)
