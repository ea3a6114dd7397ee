"""What a search knows: read from the sweep's own runs, whoever made them and whatever became of them."""

import hashlib
import json

import pytest

from conf import load
from conf.problem import Problem
from conf.sweep import space as spaces
from conf.sweep.search import Search
from conf.sweep.space import Trial
from remote.plan.verbs import Needs
from remote.runs import start
from remote.sweep.launcher import BoxLauncher
from twin import world

pytestmark = pytest.mark.slow  # each waits for what Optuna draws

WORDS = ["train.lr=tag(log,interval(1e-5,1e-3))", "lora.r=8,16,32"]


def search_on(aws, store, settings, trials=3, words=WORDS, check=lambda aws, run: Needs(None, 1, None)) -> Search:
    def score(folder):
        return json.loads((folder / "metrics.json").read_text())["score"]

    search = Search(spaces.read(list(words), trials), trials, lambda every: settings(*every))
    search.launcher = BoxLauncher(aws, store, settings.root, check, None, score)
    return search


def made(store, settings, run_id, swept, score=None, reason="crashed", phase="failed"):
    run = settings(*swept)
    start.upload_inputs(store, run)
    run.run_id, run.provenance.swept, run.provenance.owner = run_id, list(swept), world.CALLER
    files = {"config.yaml": load.dump(run), "metrics.json": json.dumps({"score": score}), "predictions.jsonl": ""}
    for name, text in files.items():
        store.put(f"runs/{run_id}/{name}", text.encode())
    state = {"phase": phase, "reason": reason, "evidence": "it broke", "hint": "mend it"}
    store.put(f"runs/{run_id}/state.json", json.dumps(state).encode())
    if score is not None:
        stated = {name: {"size": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()} for name, text in files.items()}
        store.put(f"runs/{run_id}/manifest.json", json.dumps({"kind": "full", "files": stated}).encode())


def resumed(search: Search, name=None) -> str | None:
    """The name of the sweep that the search goes on with."""
    search.name = search._resume(name)
    return search.name


def test_trials_are_read_back_with_their_values_and_what_became_of_them_by_number(aws, store, settings):
    made(store, settings, "rate.10", ("train.lr=0.0005", "lora.r=16"), score=0.7)
    made(store, settings, "rate.2", ("train.lr=0.0001", "lora.r=8"))
    made(store, settings, "rate.3", ("train.lr=0.0002", "lora.r=8"), phase="cancelled", reason="")
    made(store, settings, "rate.4", ("train.lr=0.0003", "lora.r=8"), reason="stopped")
    search = search_on(aws, store, settings)
    assert resumed(search) == "rate"
    assert [job.run_id for job in search.jobs] == ["rate.2", "rate.3", "rate.4", "rate.10"]
    assert [job.finished for job in search.jobs] == [False, False, False, True]
    assert [job.problem and job.problem.what for job in search.jobs] == ["it broke", "it broke", None, None]
    assert [search._result(job).score for job in search.jobs] == [None, None, None, 0.7]


def test_runs_of_other_settings_or_beyond_the_space_are_none_of_its_trials(aws, store, settings):
    made(store, settings, "rate.0", ("train.lr=0.01", "lora.r=8"), score=0.5)
    made(store, settings, "rate.1", ("train.lr=0.0001", "lora.r=64"), score=0.5)
    made(store, settings, "rate.2", ("train.lr=0.0001",), score=0.5)
    made(store, settings, "rate.3", ("train.lr=0.0001", "lora.r=8"), score=0.5)
    assert resumed(search_on(aws, store, settings, words=["seed=3", *WORDS])) != "rate"
    search = search_on(aws, store, settings)
    assert resumed(search, "rate") == "rate" and [job.run_id for job in search.jobs] == ["rate.3"]


def test_the_next_trial_follows_from_the_runs_alone(aws, store, settings):
    space, ended = spaces.read(WORDS, 7), []
    for number in range(6):
        words = next(space.draws(ended, seed=17))
        made(store, settings, f"rate.{number}", words, score=None if number == 3 else number / 10)
        ended.append(Trial(space.values(words), None if number == 3 else number / 10))
    search = search_on(aws, store, settings, trials=7)
    resumed(search)
    job = search.next()
    assert job.run_id == "rate.6" and job.settings.provenance.swept == next(space.draws(ended, seed=17))


def test_what_cannot_be_trained_is_said_and_another_is_drawn(aws, store, settings, capsys):
    def check(aws, run):
        if run.lora.r == 8:
            raise Problem("8 is too few", "more", "bad_data")
        return Needs(60.0, 1, None)

    search = search_on(aws, store, settings, words=["lora.r=8,16"], check=check)
    search.name = "few"
    for run_id in ("few.0", None):
        job = search.next()
        assert (job and job.run_id) == run_id
        search.jobs += [job] if job else []
    said = capsys.readouterr().out
    assert "lora.r=8 cannot be trained: 8 is too few" in said and "nothing else is left to try after 1 trials" in said
    with pytest.raises(Problem, match="8 is too few"):
        none = search_on(aws, store, settings, words=["lora.r=8,8"], check=check)
        none.name = "none"
        none.next()


def test_what_is_no_fault_of_the_trial_ends_the_search(aws, store, settings):
    def check(aws, run):
        raise Problem("the Hub does not answer", "later", "unreachable")

    search = search_on(aws, store, settings, check=check)
    search.name = "hub"
    with pytest.raises(Problem, match="does not answer"):
        search.next()
