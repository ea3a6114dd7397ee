"""What the GPUs do goes into the run's events, and what they were busy with is told in a sentence."""

import json
import time

import pytest

from conf.problem import Problem
from trainer.record import curves, gpu
from trainer.record.record import Record
from trainer.train import recipe

TWO = "98, 21035, 68.25, 71\n62, 20011, 70.00, 65\n"  # as nvidia-smi prints them for two cards


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A program of that name that prints a text; what it was asked is beside it."""
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()

    def prints(text: str, code: int = 0) -> None:
        (tmp_path / "printed").write_text(text)
        program.write_text(f"#!/bin/sh\necho \"$@\" >'{tmp_path}/asked'\ncat '{tmp_path}/printed'\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return prints


def test_a_look_is_over_all_cards(nvidia_smi, tmp_path):
    nvidia_smi(TWO)
    assert gpu.look() == gpu.Sample(0.8, 21035 * 2**20, 138.25, 71.0)
    asked = "--query-gpu=utilization.gpu,memory.used,power.draw,temperature.gpu --format=csv,noheader,nounits\n"
    assert (tmp_path / "asked").read_text() == asked


def test_what_a_card_does_not_say_is_left_out(nvidia_smi):
    nvidia_smi("98, 21035, [N/A], 71\n62, 20011, 70.00, [Unknown Error]\n")
    assert gpu.look() == gpu.Sample(0.8, 21035 * 2**20, None, 71.0)


@pytest.mark.parametrize(("text", "code"), [("", 0), ("NVIDIA-SMI has failed", 9), ("1, 2, 3, 4\n1, 2\n", 0)])
def test_a_program_that_gives_no_figures_is_a_sentence(nvidia_smi, text, code):
    nvidia_smi(text, code)
    with pytest.raises(Problem, match="nvidia-smi gives no figures"):
        gpu.look()


def test_events_carry_what_was_seen_since_the_last_one(tmp_path, monkeypatch):
    seen = [gpu.Sample(1.0, 5, 70.0, 60.0), gpu.Sample(0.5, 7, None, 62.0)]
    record = Record(tmp_path / "run")
    record.gpus = gpu.Sampler(period=3600)
    record.gpus.samples += seen
    record.event("step", step=1)
    record.event("step", step=2)
    record.gpus.close()
    first, second = map(json.loads, (tmp_path / "run/events.jsonl").read_text().splitlines())
    assert first["gpu"] == {"utilization": 0.75, "memory": 7, "power": 70.0, "temperature": 62.0} and "gpu" not in second


def test_a_run_on_a_gpu_is_sampled_and_one_without_is_not(nvidia_smi, tmp_path, monkeypatch, capsys):
    nvidia_smi(TWO)
    monkeypatch.setattr(gpu.Sampler.__init__, "__defaults__", (0.01,))
    record = Record(tmp_path / "run")
    with recipe.gpus_sampled(record):
        assert record.gpus is None
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with recipe.gpus_sampled(record):
        while not record.gpus.samples:
            time.sleep(0.01)
    assert record.gpus is None
    nvidia_smi("", 9)
    with recipe.gpus_sampled(record):
        record.gpus.thread.join()  # it gives up, and the run goes on
    assert capsys.readouterr().out.startswith("note: nvidia-smi gives no figures")


def events() -> list[dict]:
    def at(second: int, kind: str, busy: float | None, **more) -> dict:
        seen = {} if busy is None else {"gpu": {"utilization": busy, "memory": 5, "power": 70.0, "temperature": 60.0}}
        return {"time": f"2026-01-01T00:00:{second:02d}Z", "event": kind} | more | seen

    return [
        at(0, "phase", None, phase="running"),
        at(10, "progress", 0.0, what="loading model"),
        at(30, "step", 0.95, step=1),
        at(40, "step", 0.85, step=2),
        at(50, "progress", 0.4, what="scoring the tuned model"),
        at(55, "phase", 0.0, phase="running"),  # another attempt: nobody knows what the time between was used for
    ]


def test_the_sentence_says_for_what_the_gpu_was_busy_and_what_would_use_it_better():
    assert gpu.sentence(gpu.usage(events())) == (
        "the GPU was busy 63% of the time: training 92% of 30 s, loading 0% of 10 s, scoring 40% of 10 s. "
        "Scoring leaves it idle: a larger `train.eval_batch_size` may help"
    )


@pytest.mark.parametrize(
    "odd",
    [{}, {"event": "step"}, {"time": "never", "event": "step", "gpu": {}}, {"time": "2026-01-01T00:00:35Z", "event": "step", "gpu": 7}],
)
def test_lines_that_no_trainer_writes_change_no_sentence(odd):
    whole = events()
    assert gpu.sentence(gpu.usage([*whole[:3], odd, *whole[3:]])) == gpu.sentence(gpu.usage(whole))


def test_a_run_that_nobody_has_looked_at_has_no_sentence_and_no_curve():
    without = [{name: value for name, value in event.items() if name != "gpu"} for event in events()]
    assert gpu.sentence(gpu.usage(without)) == "" and gpu.sentence([]) == ""
    titles = [[title for title, _ in curves.draw(each)] for each in (events(), without)]
    assert titles == [["GPU utilisation", "GPU power", "GPU temperature"], []]
