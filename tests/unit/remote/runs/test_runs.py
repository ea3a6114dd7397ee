"""Which run a verb means, and that a run is never lost, doubled or trained twice."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from conf import load
from conf.problem import Problem
from remote.aws import session as account
from remote.runs import download, follow, progress, runs, start
from twin import world


def prepare(aws, settings, *words, instance="i-1"):
    return start.prepare(aws, settings(*words), "reg/name@sha256:1", settings.root, instance)


def set_state(store, run_id, phase, minutes_ago=0, **more):
    then = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    store.put(f"runs/{run_id}/state.json", json.dumps({"phase": phase, "since": then, "heartbeat": then, **more}).encode())


def seal(store, run_id, kind="full", owner=world.CALLER, name="quickstart"):
    """The run is finished; it is made if it was not there."""
    set_state(store, run_id, "done")
    if store.get(f"runs/{run_id}/config.yaml") is None:
        whose = f"provenance: {{owner: '{owner}'}}" if owner else ""
        store.put(f"runs/{run_id}/config.yaml", f"name: {name}\nkind: {kind}\n{whose}\n".encode())
    store.put(f"runs/{run_id}/manifest.json", json.dumps({"kind": kind, "name": name, "files": {}, "seconds": {}}).encode())


def test_the_data_travels_once_under_its_hash(aws, store, settings):
    first = prepare(aws, settings)
    assert set(store.names("inputs/")) == {f"inputs/{sha}" for sha in first.inputs}
    assert [store.put_input(settings.root / "train.jsonl")[1]] == [False]
    (settings.root / "train.jsonl").write_text('{"prompt": "other", "completion": "c"}\n')
    assert store.put_input(settings.root / "train.jsonl")[1] is True


def test_the_config_in_the_run_folder_reproduces_the_run(aws, store, settings):
    prepared = prepare(aws, settings, "lora.r=8")
    saved = runs.configuration(store, prepared.run_id)
    assert saved.lora.r == 8
    assert saved.run_id == prepared.run_id
    assert saved.data.train_sha256 in prepared.inputs
    assert saved.provenance.image == "reg/name@sha256:1"
    assert saved.provenance.price_per_hour is None or saved.provenance.price_per_hour > 0


def test_the_same_settings_go_on_with_the_unfinished_run(aws, store, settings):
    first = prepare(aws, settings).run_id
    for phase in ("running", "failed", "lost"):
        set_state(store, first, phase)
        assert prepare(aws, settings).run_id == first
        assert runs.state(store, first).phase in runs.ACTIVE, "a follower would read how the last attempt ended"


def test_a_published_or_cancelled_run_is_never_gone_on_with(aws, store, settings):
    first = prepare(aws, settings).run_id
    seal(store, first)
    store.put(f"runs/{first}/published.json", b"{}")
    second = prepare(aws, settings).run_id
    assert second != first
    set_state(store, second, "cancelled")
    assert prepare(aws, settings).run_id not in (first, second)


def test_a_finished_run_that_nobody_has_published_is_not_paid_for_twice(aws, store, settings, capsys):
    first = prepare(aws, settings)
    assert first.to_do
    seal(store, first.run_id)
    again = prepare(aws, settings)
    assert (again.run_id, again.to_do) == (first.run_id, False)
    assert "is not trained again" in capsys.readouterr().err
    other = prepare(aws, settings, "seed=2").run_id
    assert other != first.run_id
    set_state(store, other, "failed")
    changed = start.prepare(aws, settings(), "reg/name@sha256:2", settings.root, "i-1")
    assert changed.run_id != first.run_id, "another trainer may make another run of the same settings"


def test_other_data_is_another_run(aws, store, settings):
    first = prepare(aws, settings).run_id
    set_state(store, first, "failed")
    (settings.root / "train.jsonl").write_text('{"prompt": "new", "completion": "c"}\n')
    assert prepare(aws, settings).run_id != first


def test_other_settings_are_refused_while_a_run_goes_on_but_not_for_ever(aws, store, settings):
    first = prepare(aws, settings).run_id
    set_state(store, first, "running")
    with pytest.raises(Problem, match=f"{first}.* with other settings is still running") as caught:
        prepare(aws, settings, "lora.r=8")
    assert caught.value.hint == "`inv logs --follow` follows it; `inv stop-run` ends it"
    set_state(store, first, "running", minutes_ago=30)
    assert prepare(aws, settings, "lora.r=8").run_id != first


def test_a_run_that_was_made_and_never_started_is_in_nobodys_way(aws, store, settings):
    """`train` failed between the two: the box had no GPU, say. The box's lock is ours, so nobody is starting it now."""
    first = prepare(aws, settings).run_id
    assert runs.state(store, first).phase == "created"
    assert prepare(aws, settings, "lora.r=8").run_id != first
    assert prepare(aws, settings).run_id == first, "its own settings still mean it"


def test_two_people_with_a_box_each_are_not_in_each_others_way(aws, store, settings):
    hers = prepare(aws, settings, "box.name=ada").run_id
    set_state(store, hers, "running")
    his = prepare(aws, settings, "box.name=bob", "lora.r=8", instance="i-2").run_id
    assert his != hers and (runs.holder(store, hers), runs.holder(store, his)) == ("ada", "bob")


@pytest.mark.parametrize("phase", ["created", "running", "uploading"])
def test_a_run_that_goes_on_elsewhere_is_not_begun_a_second_time(aws, store, settings, phase):
    hers = prepare(aws, settings, "box.name=ada").run_id
    set_state(store, hers, phase)
    with pytest.raises(Problem, match=f"{hers}.* of these very settings is {phase} on the box `ada`"):
        prepare(aws, settings, "box.name=bob", instance="i-2")
    assert runs.holder(store, hers) == "ada"


def test_a_run_that_has_ended_elsewhere_is_given_to_the_box_that_goes_on_with_it(aws, store, settings):
    hers = prepare(aws, settings, "box.name=ada").run_id
    set_state(store, hers, "running", minutes_ago=30)
    assert prepare(aws, settings, "box.name=bob", instance="i-2").run_id == hers
    assert json.loads(store.get(f"runs/{hers}/box.json")) == {"name": "bob", "instance": "i-2"}


def test_of_two_boxes_that_take_a_run_at_once_one_gets_it(aws, store, settings, monkeypatch):
    first = prepare(aws, settings, "box.name=ada").run_id
    set_state(store, first, "failed")
    enter = start._set_phase

    def somebody_is_faster(store, run_id, phase):
        enter(store, run_id, phase)
        store.put(f"runs/{first}/box.json", json.dumps({"name": "eve", "instance": "i-3"}).encode())

    monkeypatch.setattr(start, "_set_phase", somebody_is_faster)
    with pytest.raises(Problem, match="was given to another box just now"):
        prepare(aws, settings, "box.name=bob", instance="i-2")
    assert runs.holder(store, first) == "eve"


def test_verbs_mean_the_newest_sealed_run_of_their_kind(aws, store, settings):
    for number, kind in enumerate(["full", "full", "smoke"]):
        seal(store, f"2026010{number}-000000-quickstart-0000", kind)
    going = prepare(aws, settings).run_id
    assert runs.find_sealed(aws, settings(), None) == "20260101-000000-quickstart-0000"
    assert runs.find_sealed(aws, settings("kind=smoke"), None) == "20260102-000000-quickstart-0000"
    assert runs.find_sealed(aws, settings(), "20260100-000000-quickstart-0000") == "20260100-000000-quickstart-0000"
    assert runs.find_newest(aws, settings(), None) == going


def test_runs_that_are_not_there_or_not_finished_are_named(aws, store, settings):
    with pytest.raises(Problem, match="there is no finished full run of yours called `quickstart`"):
        runs.find_sealed(aws, settings(), None)
    set_state(store, "20260109-000000-x-0000", "running")
    with pytest.raises(Problem, match="is not finished"):
        runs.find_sealed(aws, settings(), "20260109-000000-x-0000")
    with pytest.raises(Problem, match="there is no run `nope`"):
        runs.find_sealed(aws, settings(), "nope")


@pytest.mark.slow
def test_a_listing_of_more_than_a_thousand_objects_is_whole(aws, store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(f"runs/20260101-000000-x-0000/log/{number:012d}", b"x"), range(1003)))
    assert len(store.names("runs/")) == 1003


def test_a_damaged_file_is_never_handed_on(aws, store, settings, tmp_path):
    run_id = "20260101-000000-x-0000"
    store.put(f"runs/{run_id}/adapter/a.bin", b"changed")
    store.put(
        f"runs/{run_id}/manifest.json", json.dumps({"kind": "full", "files": {"adapter/a.bin": {"size": 7, "sha256": "0" * 64}}}).encode()
    )
    with pytest.raises(Problem, match=r"adapter/a\.bin does not match"):
        download.download(aws, settings(), run_id, tmp_path)


def test_a_missing_file_is_named(aws, store, settings, tmp_path):
    run_id = "20260101-000000-x-0000"
    store.put(
        f"runs/{run_id}/manifest.json", json.dumps({"kind": "full", "files": {"adapter/a.bin": {"size": 7, "sha256": "0" * 64}}}).encode()
    )
    with pytest.raises(Problem, match=r"adapter/a\.bin is missing"):
        download.download(aws, settings(), run_id, tmp_path)


def test_the_log_comes_in_order_from_any_byte(aws, store):
    text = b"".join(b"line %d\n" % number for number in range(50))
    cuts = [0, 10, 11, 200, len(text)]
    for begin, end in zip(cuts, cuts[1:], strict=False):
        store.put(f"runs/r/log/{begin:012d}", text[begin:end])
    for offset in (0, 5, 10, 11, 199, 200, len(text)):
        assert b"".join(follow.log(store, "r", offset)) == text[offset:]


def test_a_missing_chunk_stops_the_log_instead_of_leaving_a_gap(aws, store):
    store.put("runs/r/log/000000000000", b"0123456789")
    store.put("runs/r/log/000000000020", b"later")
    assert b"".join(follow.log(store, "r")) == b"0123456789"


def test_parameters_are_fetched_in_calls_of_ten(aws):
    names = [f"/many/{number:02d}" for number in range(13)]
    for name in names:
        aws.client("ssm").put_parameter(Name=name, Value=str(int(name[-2:])), Type="String")
    assert account.fetch([*names, "/not/there"], {}) == {name: str(int(name[-2:])) for name in names}


@pytest.mark.parametrize(
    ("phase", "events", "line"),
    [
        ("created", [], "created"),
        ("running", [{"event": "progress", "what": "loading model", "done": 0, "of": 1}], "running: loading model 0/1"),
        (
            "running",
            [{"event": "step", "step": 3, "steps": 16, "loss": 1.23456, "tok_s": 410.4, "eta": 75}],
            "running: step 3/16  loss 1.235  410 tokens/s  1:15 left",
        ),
        (
            "running",
            [{"event": "step", "step": 3, "steps": 16, "loss": None, "tok_s": None, "eta": None}],
            "running: step 3/16  loss -  0 tokens/s  0:00 left",
        ),
        ("done", [{"event": "step", "step": 3, "steps": 16}], "done"),
    ],
)
def test_progress_is_one_line(phase, events, line):
    assert progress.progress_line(phase, events) == line


def test_a_run_is_named_by_the_end_of_its_id(aws, store, settings):
    for run_id in ("20260101-000000-receipts-b19d", "20260102-000000-quickstart-ab12", "sweep-ab12.1", "sweep-ab12"):
        seal(store, run_id)
    assert runs.find_sealed(aws, settings(), "b19d") == "20260101-000000-receipts-b19d"
    assert runs.find_newest(aws, settings(), "receipts-b19d") == "20260101-000000-receipts-b19d"
    assert runs.find_sealed(aws, settings(), "sweep-ab12") == "sweep-ab12", "named in full"
    with pytest.raises(Problem, match="2 runs end in `ab12`: 20260102-000000-quickstart-ab12, sweep-ab12"):
        runs.find_sealed(aws, settings(), "ab12")
    for name in ("12", "", "none"):
        with pytest.raises(Problem, match=f"there is no run `{name}`"):
            runs.find_sealed(aws, settings(), name)


def test_the_best_run_is_the_one_of_the_highest_score_on_the_newest_one_s_rows(aws, store, settings):
    for number, (score, words) in enumerate([(0.9, ()), (0.7, ()), (0.99, ("data.eval_rows=7",)), (0.5, ())]):
        run = settings(*words)
        run.run_id, run.provenance.owner, run.data.validation_sha256 = f"run-{number}", world.CALLER, "a" * 64
        store.put(f"runs/run-{number}/config.yaml", load.dump(run).encode())
        store.put(f"runs/run-{number}/metrics.json", json.dumps({"tuned": {"macro_f1": score, "token_f1": score}}).encode())
        seal(store, f"run-{number}")
    assert runs.find_sealed(aws, settings(), None) == "run-3"
    assert runs.find_sealed(aws, settings(), "best") == "run-0"
    store.put("runs/run-0/metrics.json", b"[]")
    assert runs.find_sealed(aws, settings(), "best") == "run-1"
