"""What a search knows: read from the sweep's own runs, whoever made them and whatever became of them."""

import hashlib
import json

import pytest

from conf import load, search_space
from conf.problem import Problem
from conf.search_space import Told
from remote.aws.s3 import Store
from remote.plan.verbs import Needs
from remote.runs import runs
from remote.sweep.search import Search
from twin import world

pytestmark = pytest.mark.slow  # each waits for what Optuna draws

WORDS = ["train.lr=tag(log,interval(1e-5,1e-3))", "lora.r=8,16,32"]


def searching(aws, settings, trials=3, words=WORDS, check=lambda aws, run: Needs(None, 1, None)) -> Search:
    def score(folder):
        return json.loads((folder / "metrics.json").read_text())["score"]

    found = Search(search_space.read(list(words), trials), trials, lambda every: settings(*every), settings.root, check, None, score)
    found.aws, found.store = aws, Store(aws)
    return found


def made(store, settings, run_id, swept, score=None, reason="crashed", phase="failed"):
    run = settings(*swept)
    runs.upload_inputs(store, run)
    run.run_id, run.provenance.swept, run.provenance.owner = run_id, list(swept), world.CALLER
    files = {"config.yaml": load.dump(run), "metrics.json": json.dumps({"score": score}), "predictions.jsonl": ""}
    for name, text in files.items():
        store.put(f"runs/{run_id}/{name}", text.encode())
    state = {"phase": phase, "reason": reason, "evidence": "it broke", "hint": "mend it"}
    store.put(f"runs/{run_id}/state.json", json.dumps(state).encode())
    if score is not None:
        stated = {name: {"size": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()} for name, text in files.items()}
        store.put(f"runs/{run_id}/manifest.json", json.dumps({"kind": "full", "files": stated}).encode())


def begun(found: Search, name=None) -> str:
    found.name = found._begin(name)
    return found.name


def test_trials_are_read_back_with_their_values_and_what_became_of_them_by_number(aws, store, settings):
    made(store, settings, "rate.10", ("train.lr=0.0005", "lora.r=16"), score=0.7)
    made(store, settings, "rate.2", ("train.lr=0.0001", "lora.r=8"))
    made(store, settings, "rate.3", ("train.lr=0.0002", "lora.r=8"), phase="cancelled", reason="")
    made(store, settings, "rate.4", ("train.lr=0.0003", "lora.r=8"), reason="stopped")
    found = searching(aws, settings)
    assert begun(found) == "rate"
    assert [job.run_id for job in found.jobs] == ["rate.2", "rate.3", "rate.4", "rate.10"]
    assert [job.finished for job in found.jobs] == [False, False, False, True]
    assert [job.problem and job.problem.what for job in found.jobs] == ["it broke", "it broke", None, None]
    assert [found._score(job) for job in found.jobs] == [None, None, None, 0.7]


def test_runs_of_other_settings_or_beyond_the_space_are_none_of_its_trials(aws, store, settings):
    made(store, settings, "rate.0", ("train.lr=0.01", "lora.r=8"), score=0.5)
    made(store, settings, "rate.1", ("train.lr=0.0001", "lora.r=64"), score=0.5)
    made(store, settings, "rate.2", ("train.lr=0.0001",), score=0.5)
    made(store, settings, "rate.3", ("train.lr=0.0001", "lora.r=8"), score=0.5)
    assert begun(searching(aws, settings, words=["seed=3", *WORDS])) != "rate"
    found = searching(aws, settings)
    assert begun(found, "rate") == "rate" and [job.run_id for job in found.jobs] == ["rate.3"]


def test_the_next_trial_follows_from_the_runs_alone(aws, store, settings):
    space, told = search_space.read(WORDS, 7), []
    for number in range(6):
        words = next(space.draws(told, seed=17))
        made(store, settings, f"rate.{number}", words, score=None if number == 3 else number / 10)
        told.append(Told(space.values(words), None if number == 3 else number / 10))
    found = searching(aws, settings, trials=7)
    begun(found)
    job = found._next()
    assert job.run_id == "rate.6" and job.run.provenance.swept == next(space.draws(told, seed=17))


def test_what_cannot_be_trained_is_said_and_another_is_drawn(aws, store, settings, capsys):
    def check(aws, run):
        if run.lora.r == 8:
            raise Problem("8 is too few", "more", "bad_data")
        return Needs(60.0, 1, None)

    found = searching(aws, settings, words=["lora.r=8,16"], check=check)
    begun(found, "few")
    for run_id in ("few.0", None):
        job = found._next()
        assert (job and job.run_id) == run_id
        found.jobs += [job] if job else []
    said = capsys.readouterr().out
    assert "lora.r=8 cannot be trained: 8 is too few" in said and "nothing else is left to try after 1 trials" in said
    with pytest.raises(Problem, match="8 is too few"):
        none = searching(aws, settings, words=["lora.r=8,8"], check=check)
        begun(none, "none")
        none._next()


def test_what_is_no_fault_of_the_trial_ends_the_search(aws, store, settings):
    def check(aws, run):
        raise Problem("the Hub does not answer", "later", "unreachable")

    found = searching(aws, settings, check=check)
    begun(found, "hub")
    with pytest.raises(Problem, match="does not answer"):
        found._next()
