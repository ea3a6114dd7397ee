"""A search by the real command: values drawn by the scores so far, and the same ones however often it is broken off."""

import csv
import json
import signal
import time

import pytest

from conf.sweep import space as spaces
from conf.sweep.space import Trial
from conf.text.quoting import quoted
from tests.unit.trainer.sweep.test_sweep import Sweeps
from trainer.record import leaderboard, record

pytestmark = pytest.mark.slow  # a trainer for each trial

SPACE = ("train.lr=tag(log,interval(1e-5,1e-3))", "train.steps=range(3,9)")


@pytest.fixture
def sweeps(tmp_path):
    return Sweeps(tmp_path / "a volume")


def swept(sweeps: Sweeps) -> list[list[str]]:
    """What was drawn, run by run."""
    count = len(list(sweeps.runs.glob("rank.[0-9]*")))
    return [record.settings(sweeps.runs / f"rank.{number}").provenance.swept for number in range(count)]


def drawn(sweeps: Sweeps, trials: int) -> list[list[str]]:
    """What a search that nothing ever broke off would draw, with the scores that these runs have."""
    space, ended = spaces.read(list(SPACE), trials), []
    for number in range(trials):
        values, folder = space.draw(ended, seed=17), sweeps.runs / f"rank.{number}"
        ended.append(Trial(values, leaderboard.score(folder) if record.sealed(folder) else None))
    return [space.words(trial.values) for trial in ended]


def test_a_search_goes_on_without_what_fails_and_more_trials_add_to_it(sweeps):
    code, said = sweeps.run("hydra.sweeper.n_trials=3", *SPACE, crash_at=6, step_seconds=0)
    assert code == 0, said
    assert swept(sweeps) == drawn(sweeps, 3)
    steps = [int(words[1].partition("=")[2]) for words in swept(sweeps)]
    failing = [number for number, count in enumerate(steps) if count >= 6]
    assert 0 < len(failing) < 3, f"the seed no longer draws some of both kinds: {steps}"
    assert f"{len(failing)} of 3 trials failed:\n  rank.{failing[0]} (" in said and "told to crash at step 6" in said
    assert [record.sealed(sweeps.runs / f"rank.{number}") for number in range(3)] == [number not in failing for number in range(3)]
    table = list(csv.DictReader((sweeps.runs / "rank.csv").read_text().splitlines()))
    assert {row["settings"] for row in table} == {" ".join(words) for number, words in enumerate(swept(sweeps)) if number not in failing}

    code, said = sweeps.run("hydra.sweeper.n_trials=4", *SPACE, step_seconds=0)
    assert code == 0, said
    assert said.count("is finished: not trained again") == 3 - len(failing) and said.count("process ") == 1
    assert f"rank.{failing[0]} ({' '.join(swept(sweeps)[failing[0]])}) has failed: " in said
    assert swept(sweeps) == drawn(sweeps, 4)


def test_ctrl_c_breaks_a_search_off_and_it_goes_on_with_the_very_same_trial(sweeps):
    words = ("hydra.sweeper.n_trials=2", *SPACE)
    process = sweeps.start(*words, step_seconds=0.3)
    checkpoints, deadline = sweeps.runs / "rank.0/checkpoints", time.monotonic() + 900
    while not [*checkpoints.glob("step-*")] and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 130 and "the sweep was stopped at rank.0; 0 of 2 trials are finished" in said
    assert "hydra.sweeper.n_trials=2" in said.partition("hint: ")[2]

    code, said = sweeps.run(*words, step_seconds=0)
    assert code == 0, said
    assert "going on after step" in (sweeps.runs / "rank.0/log.txt").read_text()
    assert swept(sweeps) == drawn(sweeps, 2)


def test_a_small_space_is_tried_once_and_no_more(sweeps):
    code, said = sweeps.run("hydra.sweeper.n_trials=5", "train.steps=1,2", step_seconds=0)
    assert code == 0 and "nothing else is left to try after 2 trials" in said, said
    assert sorted(swept(sweeps)) == [["train.steps=1"], ["train.steps=2"]]


def test_a_search_of_which_every_trial_failed_says_so(sweeps):
    code, said = sweeps.run("hydra.sweeper.n_trials=2", "train.steps=3,4", crash_at=2, step_seconds=0)
    assert code == 1 and "2 of 2 trials failed:\n  rank.0 (train.steps=" in said and "run_id=NAME`" in said
    again, said = sweeps.run("hydra.sweeper.n_trials=2", "train.steps=3,4", step_seconds=0)
    assert again == 1 and "process " not in said, "what has failed is not tried again"


def test_what_cannot_be_is_said_before_anything_is_trained(sweeps):
    for words, what, hint in (
        (("train.lr=interval(1e-5,1e-3)",), "needs `hydra.sweeper.n_trials`", "hydra.sweeper.n_trials=12"),
        (("hydra.sweeper.n_trials=0", "lora.r=2,4"), "a search of 0 trials", "12"),
        (("hydra.sweeper.n_trials=many", "lora.r=2,4"), "n_trials is many", "n_trials=12"),
        (("hydra.sweeper.n_trials=3", "lora.r=2,0"), "lora.r is 0", "more than 0"),
        (("hydra.sweeper.n_trials=3", "lora.r=2"), "no setting has several values", "lora.r=8,16"),
        (("hydra.sweeper.n_trials=3", "run_id=a/b", "lora.r=2,4"), "run_id is 'a/b'", "letters, digits"),
    ):
        code, said = sweeps.run(*words)
        error, _, rest = said.partition("\n\nhint: ")
        assert code == 1 and what in error and hint in rest, said
        assert not list(sweeps.runs.glob("rank.*"))


def test_the_real_trainer_is_searched(sweeps, tiny):
    few = ("quant=none", "train.steps=2", "data.eval_rows=2", "train.report_to=[]", f"model.id={quoted(tiny)}")
    words = ("hydra.sweeper.n_trials=2", *few, "train.lr=tag(log,interval(1e-4,1e-2))", "lora.r=2,4")
    process = sweeps.start(*words, program=("-m", "trainer"))
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    first, second = (json.loads((sweeps.runs / f"rank.{number}/manifest.json").read_text()) for number in range(2))
    assert first["provenance"]["swept"] != second["provenance"]["swept"]
    assert all(record.verify(sweeps.runs / f"rank.{number}") for number in range(2))
    rows = list(csv.DictReader((sweeps.runs / "rank.csv").read_text().splitlines()))
    assert {row["settings"] for row in rows} == {" ".join(made["provenance"]["swept"]) for made in (first, second)}
