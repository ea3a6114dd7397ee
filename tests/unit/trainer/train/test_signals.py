"""A run that is asked to stop finishes what must be whole, saves the step it is in, and goes on from there as if nothing had been."""

import json
import os
import random
import signal
import time

import pytest
import torch

from conf import schema
from conf.problem import Problem
from data.rows import read
from tests.unit.trainer import forked
from tests.unit.trainer.conftest import TRAIN
from trainer.evaluate import eval_step
from trainer.files import digest, read_json_lines
from trainer.model import model
from trainer.model.distributed import ProcessGroup
from trainer.record.record import Record
from trainer.rows import prompt
from trainer.rows.sampler import Sampler, WeightedRows
from trainer.train import checkpoint, loop
from trainer.train.signals import StopRequest

STEPS = 5
FORKED = ["quant=none", "train.steps=12", "train.batch_size=2", "train.save_steps=100", "train.eval_steps=4", "data.eval_rows=2"]
FORKED += ["lora.dropout=0.1", "train.report_to=[]"]


@pytest.fixture(autouse=True)
def ears():
    """The tests' process is as deaf or not as before, whatever a stop has left."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def settings(settings_for, tmp_path):
    return five_steps(settings_for(tmp_path))


def five_steps(settings):
    settings.train.steps, settings.train.batch_size, settings.train.save_steps, settings.train.eval_steps = STEPS, 3, 100, 2
    return settings


class Job:
    """A run on the tiny model, in this process, that can be trained again and again."""

    def __init__(self, base_for, examples, settings, folder):
        self.base_for, self.examples, self.settings, self.folder = base_for, examples, settings, folder
        self.score = lambda: 0.0

    def train(self):
        torch.manual_seed(3)
        self.tuned = model.add_adapter(self.base_for(), schema.Lora(4, 8, 0.1, "all-linear", {}), gradient_checkpointing=False)
        self.store = checkpoint.CheckpointStore(self.folder / "checkpoints", "x", 3)
        order = Sampler([WeightedRows(self.examples)], self.settings.seed, self.settings.train.batch_size)
        arguments = (self.examples[:2], self.settings, self.store, Record(self.folder), ProcessGroup(), lambda: self.score())
        return loop.train(self.tuned, order, *arguments)

    @property
    def outcome(self):
        self.store.restore(self.progress.best_step, self.tuned)
        return self.progress, {name: weight.tolist() for name, weight in self.tuned.named_parameters() if weight.requires_grad}

    def whole(self):
        self.progress = self.train()
        return self.outcome


@pytest.fixture
def job(base_for, examples, settings, tmp_path):
    return Job(base_for, examples, settings, tmp_path / "stopped")


@pytest.fixture(scope="module")
def expected(base_for, settings_for, tmp_path_factory):
    """The outcome of the run that nobody stops."""
    folder, base = tmp_path_factory.mktemp("unbroken"), base_for()
    template = prompt.Prompt(base.tokenizer, base.stops)
    examples = [template.example(row) for row in read(TRAIN)[:6]]
    return Job(base_for, examples, five_steps(settings_for(folder)), folder / "run").whole()


def stop(times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)


def striking(monkeypatch, where, name: str, turn: int, times: int = 1):
    """From now on SIGTERM comes as `where.name` is called for the `turn`-th time."""
    real, calls = getattr(where, name), []

    def struck(*arguments, **options):
        calls.append(name)
        if len(calls) == turn:
            stop(times)
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, struck)


def saved(job) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(job.folder.glob("checkpoints/step-*/progress.json"))]


@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_within_a_step_waits_for_its_end_and_saves_it_also_when_asked_twice(times, job, expected, monkeypatch):
    with monkeypatch.context() as patch:
        striking(patch, loop, "packs", 3, times)  # in the third step, before anything of it is computed
        with pytest.raises(Problem, match="after step 3 of 5, which is saved") as caught:
            job.train()
    assert caught.value.reason == "killed"
    assert saved(job)[-1]["step"] == 3
    assert job.whole() == expected


def test_a_stop_within_a_measurement_breaks_it_off_and_it_is_made_up_for(job, expected, monkeypatch):
    with monkeypatch.context() as patch:
        striking(patch, eval_step, "packs", 2)  # the first is the one before the first step, the second is behind step 2
        with pytest.raises(Problem, match="after step 2 of 5, which is saved"):
            job.train()
    assert [event["step"] for event in read_json_lines(job.folder / "events.jsonl") if event["event"] == "eval"] == [0]
    assert (saved(job)[-1]["step"], saved(job)[-1]["due"]) == (2, True)
    assert job.whole() == expected
    assert [event["step"] for event in read_json_lines(job.folder / "events.jsonl") if event["event"] == "eval"] == [0, 2, 4, 5]


def test_a_stop_while_the_last_step_is_scored_scores_it_later(job, settings, base_for, examples, tmp_path):
    settings.train.metric_for_best_model = schema.BestMetric.macro_f1
    expected = Job(base_for, examples, settings, tmp_path / "unbroken").whole()
    scored = []

    def score():
        scored.append(len(scored))
        if len(scored) == 3:
            stop()
        return 0.0

    job.score = score
    with pytest.raises(Problem, match="after step 5 of 5, which is saved"):
        job.train()
    assert job.whole() == expected
    assert len(scored) == 4


def test_a_stop_while_a_checkpoint_is_written_waits_until_it_is_whole(job, expected, monkeypatch):
    with monkeypatch.context() as patch:
        striking(patch, checkpoint, "_write", 2)
        with pytest.raises(Problem, match="after step 2 of 5, which is saved"):
            job.train()
    assert not (job.folder / "checkpoints/part").exists()
    assert [checkpoint_progress["step"] for checkpoint_progress in saved(job)] == [2] and not saved(job)[0]["due"]
    assert job.whole() == expected


def test_a_stop_before_the_first_step_leaves_nothing(job, expected, monkeypatch):
    with monkeypatch.context() as patch:
        striking(patch, eval_step, "packs", 1)
        with pytest.raises(Problem, match="before its first step"):
            job.train()
    assert saved(job) == []
    assert job.whole() == expected


def test_a_second_stop_in_the_same_evaluation_writes_nothing_again(job, expected, monkeypatch):
    written = []
    for turn in (2, 1):
        with monkeypatch.context() as patch:
            striking(patch, eval_step, "packs", turn)
            with pytest.raises(Problem, match="after step 2 of 5"):
                job.train()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        written.append((job.folder / "checkpoints/step-000002/COMPLETE").stat().st_mtime_ns)
    assert written[0] == written[1]
    assert job.whole() == expected


def test_outside_of_training_the_handlers_are_those_of_before():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_ctrl_c_does_not_wait():
    with StopRequest() as request, pytest.raises(KeyboardInterrupt), request.deferred():
        signal.raise_signal(signal.SIGINT)
        requested = request.requested
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it waited")
    assert requested


def test_a_process_that_does_not_handle_signals_is_not_stopped():
    with StopRequest(handled=False) as request:
        stop()
    assert not request.requested


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("volume") / "runs"


@pytest.fixture(scope="module")
def unbroken(settings_for, runs):
    settings = settings_for(runs, *FORKED)
    folder = forked.make(settings, "unbroken")
    seconds = forked.whole(settings, folder)
    return digest(folder / forked.ADAPTER), seconds


@pytest.mark.parametrize("number", range(4))
@pytest.mark.slow
def test_stopped_at_a_random_moment_no_step_is_lost_and_the_bytes_are_the_same(number, settings_for, runs, unbroken):
    """By the trainer's own entry, without a checkpoint but those of stops and of the best step."""
    expected, seconds = unbroken
    settings = settings_for(runs, *FORKED)
    folder = forked.make(settings, f"stopped-{number}")
    child = forked.start(settings, folder)
    time.sleep(random.Random(f"stop {number}").uniform(0.1, 0.9) * seconds)
    child.terminate()
    child.join()
    taken = [event["step"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step"]
    if child.exitcode != 0:  # else it had ended
        state = json.loads((folder / "state.json").read_text())
        assert (state["phase"], state["reason"]) == ("failed", "killed"), (folder / "log.txt").read_text()
        assert not taken or taken[-1] == 12 or f"after step {taken[-1]} of 12, which is saved" in state["evidence"]
    forked.whole(settings, folder)
    again = [event["step"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step"]
    assert again == list(range(1, 13)), "a step was lost, or taken twice"
    assert digest(folder / forked.ADAPTER) == expected
