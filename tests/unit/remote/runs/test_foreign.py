"""What others may put into the bucket: it names no place on this machine, is in nobody's way, and does not pass for the caller's own."""

import hashlib
import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from conf import load, paths
from conf.problem import Problem
from conf.process.screen import screen
from conf.sweep.job import Job
from remote.aws import s3 as stores
from remote.aws.session import Aws
from remote.cost import box_usage, ledger, limit
from remote.runs import clean, download, evaluations, follow, hub, lock, predictions, progress, runs, start
from remote.sweep.launcher import BoxLauncher
from remote.view import show, status
from tests.unit.remote.sweep.test_launcher import place
from twin import world

RUN = "20261129-000000-quickstart-0001"
EVE = "arn:aws:iam::123456789012:user/eve"
ODD = [b"", b"[]", b"null", b"7", b'"text"', b"{", b"{}", b"\xff\xfe\x00", b'{"a": ' * 100_000, b'{"phase": ["running"], "files": 3}']


def plant(store, run_id=RUN, files=None, owner=EVE, name="quickstart", kind="full", more=None):
    """A finished run, of whatever files somebody likes."""
    files = {"metrics.json": b"{}"} if files is None else files
    stated = {key: {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for key, body in files.items()}
    manifest = {"kind": kind, "name": name, "run_id": run_id, "files": stated, "seconds": {}} | (more or {})
    whose = f"provenance: {{owner: '{owner}'}}" if owner else ""
    store.put(f"runs/{run_id}/config.yaml", f"name: {name}\nkind: {kind}\n{whose}\n".encode())
    store.put(f"runs/{run_id}/manifest.json", json.dumps(manifest).encode())
    for key, body in files.items():
        store.client.put_object(Bucket=store.bucket, Key=f"{store.key('')}runs/{run_id}/{key}", Body=body)


@pytest.fixture
def hers(aws):
    """The account, as eve is known in it."""
    made = Aws(aws.cloud)
    made._caller = EVE
    return made


@pytest.mark.parametrize(
    "name",
    [
        "{elsewhere}",
        "../../loot",
        "../" + RUN + "-2/metrics.json",
        "adapter/../../../loot",
        "adapter//{elsewhere}",
        "adapter/..",
        "adapter/.",
        "adapter/",
        "adapter\\..\\loot",
        "~/loot",
        "adapter/a\nb",
        "adapter/" + "a" * 400,
        "state.json.part",
        "log.txt",
        ".bashrc",
        "",
    ],
)
def test_a_manifest_names_no_file_but_those_of_a_run(aws, store, settings, tmp_path, name):
    """C1: an absolute path in a manifest was once written to on the laptop that asked for a report."""
    name = name.replace("{elsewhere}", str(tmp_path / "loot"))
    plant(store, more={"files": {name: {"size": 3, "sha256": hashlib.sha256(b"bad").hexdigest()}}})
    if name.isprintable():  # a key with a line end is one that this bucket does not take
        store.client.put_object(Bucket=store.bucket, Key=f"{store.key('')}runs/{RUN}/{name or 'x'}", Body=b"bad")
    into = tmp_path / "mine" / "runs"
    with pytest.raises(Problem, match="is not as a trainer writes it|names no file in"):
        download.download(aws, settings(), RUN, into)
    launcher = BoxLauncher(aws, store, settings.root, None, None, None)
    with pytest.raises(Problem):
        launcher._fetched(Job(settings(f"runs={into}"), RUN))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".jsonl"]


def test_a_link_that_leads_out_of_the_folder_is_not_followed(aws, store, settings, tmp_path):
    plant(store, files={"adapter/a.json": b"bad"})
    (tmp_path / "into" / RUN).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "into" / RUN / "adapter").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Problem, match="names no file in"):
        download.download(aws, settings(), RUN, tmp_path / "into")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_every_way_to_the_disk_is_the_one_that_looks_at_the_name():
    """Nothing else of this room takes a file out of the bucket."""
    for path in Path(stores.__file__).parents[1].rglob("*.py"):
        assert ("download_file" in path.read_text() or "download_fileobj" in path.read_text()) == (path.name == "s3.py"), path


@pytest.mark.parametrize(
    "changed",
    [{"size": -1}, {"size": "7"}, {"size": None}, {"size": 10**15}, {"sha256": 7}, {"sha256": "$(id)"}, {"sha256": "../" * 20}, 3, None],
)
def test_sizes_are_those_of_the_objects(aws, store, settings, tmp_path, changed):
    stated = {"size": 3, "sha256": "0" * 64}
    plant(
        store, files={"metrics.json": b"abc"}, more={"files": {"metrics.json": stated | changed if isinstance(changed, dict) else changed}}
    )
    with pytest.raises(Problem, match="is not as a trainer writes it|its record says"):
        download.download(aws, settings(), RUN, tmp_path / "into")


def test_what_is_larger_than_a_record_is_not_read(store, monkeypatch):
    monkeypatch.setattr(stores, "RECORD", 10)
    store.put("locks/me.json", b'{"who": "somebody with a long name"}')
    with pytest.raises(Problem, match="and no more than 10 are read"):
        store.json("locks/me.json")


def test_names_in_the_bucket_that_no_run_has_are_left_out_with_a_word(store, capsys):
    for key in ("runs/", "runs/loose", "runs/../etc/passwd", "runs/.hidden/config.yaml", "runs/a b/config.yaml", "runs/-rf/config.yaml"):
        store.client.put_object(Bucket=store.bucket, Key=f"{store.key('')}{key}", Body=b"x")
    store.client.put_object(Bucket=store.bucket, Key=f"{store.key('')}runs/\x1b]0;mine\x07/config.yaml", Body=b"x")
    plant(store)
    assert list(runs.listing(store)) == [RUN]
    printed = capsys.readouterr().err
    assert "is not a file of a run" in printed and "\x1b" not in printed


@pytest.mark.parametrize("body", ODD)
def test_a_broken_run_of_somebody_is_in_nobodys_way(aws, store, settings, body, capsys):
    """One config.yaml that held `[]` ended everybody's `inv train` with a traceback."""
    for run_id, name in [("odd-1", "config.yaml"), ("odd-2", "state.json"), ("odd-3", "box.json"), ("odd-4", "manifest.json")]:
        mine = load.dump(replace(settings(), run_id=run_id)).encode()
        store.put(f"runs/{run_id}/config.yaml", mine)
        store.put(f"runs/{run_id}/{name}", body)
    store.put("runs/sweep.0/config.yaml", body)
    store.put("lives/i-1/20260101T000000Z.json", body)
    store.put("boxes/i-1/2026.json", body)
    prepared = start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1")
    assert prepared.to_do and prepared.run_id not in ("odd-1", "odd-4")
    place(aws, store, settings, None, "lora.r=4,8")
    assert box_usage.usage(store, None) == []
    ledger._runs(store)
    assert "odd-2" in status.text(aws, settings(), {})[0]
    with pytest.raises(Problem, match="no run of yours called `quickstart` has finished yet; .* is created"):
        runs.find_sealed(aws, settings(), None)
    assert runs.find_newest(aws, settings(), None) == prepared.run_id
    clean.choose(aws, "ours", 1, True, False, (), ())
    assert "Traceback" not in capsys.readouterr().err


def test_what_has_no_settings_is_listed_as_no_run(aws, store, settings, capsys):
    """One object under a name of a run's was a run that was `created`, and ten of them hid the real ones."""
    mine = start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1").run_id
    for number in range(12):
        store.put(f"runs/29991231-000000-quickstart-{number:04d}/log/000000000000", b"x")
    shown = status.text(aws, settings(), {})[0]
    assert mine in shown and "29991231" not in shown
    assert "`29991231-000000-quickstart-0003` has no settings" in capsys.readouterr().err
    clean.choose(aws, "ours", None, True, False, (), ())
    assert "29991231-000000-quickstart-0003" in (printed := capsys.readouterr().err) and "no run: it has no settings" in printed


@pytest.mark.parametrize("body", ODD)
def test_a_broken_lock_is_somebodys(aws, store, body):
    store.put("locks/me.json", body)
    assert "somebody" in lock.holder(aws, "me")
    with pytest.raises(Problem, match="somebody works on this box"):
        lock.acquire(aws, "me", "up")


@pytest.mark.parametrize("name", ["5", "x", "00000000000a", "../000000000000", "٠٠٠٠٠٠٠٠٠٠٠٠"])
def test_pieces_of_a_log_have_the_names_that_the_box_gives_them(store, name):
    store.put(f"runs/{RUN}/log/000000000000", b"a line\n")
    store.client.put_object(Bucket=store.bucket, Key=f"{store.key('')}runs/{RUN}/log/{name}", Body=b"other")
    assert b"".join(follow.log(store, RUN)) == b"a line\n"
    assert follow.tail(store, RUN, 1) == 0


EVENTS = [{"event": "step", "step": 1, "eta": "soon"}, {"event": "progress"}, {"event": "step", "loss": [], "steps": 4}]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_that_no_trainer_writes_ends_no_watch(event):
    assert progress.progress_line("running", [event]) == "running: its newest event is none that a trainer writes"


@pytest.mark.parametrize("metrics", [b"[]", b"{}", b'{"task": "fields", "rows": "many"}', b"not json"])
def test_a_report_of_a_run_that_no_trainer_made_is_a_sentence(aws, store, settings, tmp_path, metrics):
    plant(store, files={"metrics.json": metrics})
    from trainer.record.report import advice, summary

    with pytest.raises(Problem, match="is not as a trainer writes it"):
        show.report(aws, settings(), RUN, tmp_path, summary, advice)


def test_a_verb_means_the_callers_own_runs_and_says_whose_another_is(aws, store, settings, tmp_path, hers, capsys):
    """H1: the bucket's newest run was published, whosever it was."""
    mine, later = "20261128-000000-quickstart-0000", "20261129-000001-quickstart-0001"
    plant(store, mine, owner=world.CALLER)
    plant(store, later, owner=EVE)
    plant(store, "20261129-000002-other-0001", owner=world.CALLER, name="other")
    assert runs.find_sealed(aws, settings(), None) == runs.find_newest(aws, settings(), None) == mine
    assert download.download(aws, settings(), None, tmp_path / "into").run_id == mine
    assert runs.find_sealed(hers, settings(), None) == later
    assert "not yours" not in capsys.readouterr().err
    assert runs.find_sealed(aws, settings(), later) == later
    assert f"run {later} is not yours: it belongs to {EVE}" in capsys.readouterr().err


def test_with_none_of_ones_own_the_newest_is_told_with_its_owner(aws, store, settings):
    plant(store)
    with pytest.raises(Problem, match=f"no finished full run of yours .* {RUN}, .*belongs to {EVE}\n\nhint: `--run {RUN}`"):
        runs.find_sealed(aws, settings(), None)
    with pytest.raises(Problem, match="no run of yours called `quickstart`"):
        runs.find_newest(aws, settings(), None)


def test_a_run_that_was_made_before_runs_had_owners_is_read_where_it_is_named(aws, store, settings, tmp_path, capsys):
    plant(store, owner=None)
    with pytest.raises(Problem, match="was made before runs had owners"):
        runs.find_sealed(aws, settings(), None)
    assert download.download(aws, settings(), RUN, tmp_path / "into").run_id == RUN
    assert f"run {RUN} is not yours: it was made before runs had owners" in capsys.readouterr().err


def test_nobody_goes_on_with_the_run_of_another_unless_he_names_it(aws, store, settings, hers, capsys):
    theirs = start.prepare(hers, settings(), "reg/name@sha256:1", settings.root, "i-1").run_id
    store.put(f"runs/{theirs}/state.json", json.dumps({"phase": "failed", "since": runs.now()}).encode())
    mine = start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1").run_id
    assert mine != theirs
    assert f"it is not yours: `inv train --run {theirs}` goes on with it" in capsys.readouterr().err
    named = start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1", theirs)
    assert named.run_id == theirs and f"belongs to {EVE}" in capsys.readouterr().err
    with pytest.raises(Problem, match="has other settings than these, or is finished"):
        start.prepare(aws, settings("lora.r=4"), "reg/name@sha256:1", settings.root, "i-1", theirs)
    with pytest.raises(Problem, match="there is no run `nope`"):
        start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1", "nope")


def test_the_finished_run_of_another_is_not_taken_for_ones_own(aws, store, settings, hers):
    image = "reg/name@sha256:1"
    theirs = start.prepare(hers, settings(), image, settings.root, "i-1").run_id
    store.put(f"runs/{theirs}/manifest.json", b'{"kind": "full", "files": {}}')
    assert start.prepare(aws, settings(), image, settings.root, "i-1").run_id != theirs
    assert start.prepare(aws, settings(), image, settings.root, "i-1", theirs).to_do is False


def test_the_sweep_of_another_is_gone_on_with_where_it_is_named(aws, store, settings, hers):
    run = settings("lora.r=8")
    start.upload_inputs(store, run)
    run.run_id, run.provenance.owner = "rank.0", EVE
    store.put("runs/rank.0/config.yaml", load.dump(run).encode())
    for name, expected in (("rank", "rank.0"), (None, None)):
        _, jobs = place(aws, store, settings, name, "lora.r=8,16")
        assert (jobs[0].run_id == expected) is (expected is not None)


def test_clean_leaves_the_runs_of_others(aws, store, settings, hers, monkeypatch):
    start.prepare(hers, settings(), "reg/name@sha256:1", settings.root, "i-1")
    plant(store, "20200101-000000-quickstart-0001")
    assert clean.choose(aws, "ours", 1, True, False, (), ()).count == 0


def test_the_settings_of_a_run_are_written_once(aws, store, settings):
    run = settings()
    run.run_id = "rank.0"
    first = start.prepare(aws, run, "reg/name@sha256:1", settings.root, "i-1")
    body = store.get("runs/rank.0/config.yaml")
    assert first.config_sha256 == hashlib.sha256(body).hexdigest()
    again = start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1")
    assert (again.run_id, again.config_sha256) == ("rank.0", first.config_sha256)
    other = settings("lora.r=4")
    other.run_id = "rank.0"
    with pytest.raises(Problem, match="there is a run `rank.0` already"):
        start.prepare(aws, other, "reg/name@sha256:1", settings.root, "i-1")
    assert store.get("runs/rank.0/config.yaml") == body


def test_settings_of_one_run_under_the_name_of_another_are_nobodys(aws, store, settings, capsys):
    first = start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1").run_id
    store.put(f"runs/{RUN}/config.yaml", store.get(f"runs/{first}/config.yaml"))
    store.remove_all([f"runs/{first}/config.yaml"])
    assert start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1").run_id != RUN
    assert "is of another run" in capsys.readouterr().err


def test_a_planted_run_with_the_callers_settings_and_a_callback_is_never_gone_on_with(aws, store, settings):
    """C2: `hydra.callbacks` in its config.yaml ran code beside the Hub token."""
    run = settings()
    start.upload_inputs(store, run)
    run.run_id, run.provenance.owner = RUN, world.CALLER
    store.put(f"runs/{RUN}/config.yaml", load.dump(run).encode() + b"hydra: {callbacks: {mine: {_target_: os.system}}}\n")
    store.put(f"runs/{RUN}/state.json", b'{"phase": "failed"}')
    assert start.prepare(aws, settings(), "reg/name@sha256:1", settings.root, "i-1").run_id != RUN


def published(aws, settings, tmp_path, stated, *words):
    (tmp_path / "manifest.json").write_text(json.dumps(stated))
    seen = []
    upload = lambda folder, repository, *more: seen.append(repository) or {"url": "x"}  # noqa: E731
    hub.publish(aws, upload, RUN, tmp_path, settings(*words), None, print)
    return seen


def test_the_repository_is_the_one_of_the_callers_own_settings(aws, store, settings, tmp_path, monkeypatch):
    """H1: its name came from the manifest."""
    monkeypatch.setattr(hub, "token", lambda aws: "hf_token")
    mine = {"kind": "full", "name": "quickstart"}
    assert published(aws, settings, tmp_path, mine) == ["quickstart"]
    with pytest.raises(Problem, match="is called `victim`, and these settings `quickstart`"):
        published(aws, settings, tmp_path, mine | {"name": "victim"})
    assert published(aws, settings, tmp_path, mine | {"name": "victim"}, "publish.repository=me/own") == ["me/own"]
    with pytest.raises(Problem, match="is a smoke run, and these settings are those of a full one"):
        published(aws, settings, tmp_path, mine | {"kind": "smoke"})


ARN = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Power_0123/"


@pytest.mark.parametrize(
    ("arn", "owner"),
    [
        ("arn:aws:iam::123456789012:user/team/ann", "arn:aws:iam::123456789012:user/team/ann"),
        (ARN + "ann@example.org", ARN + "ann@example.org"),
        (ARN + "botocore-session-1764400000", ARN[:-1]),
        (ARN + "1764400000123456789", ARN[:-1]),
        (ARN + "GitHubActions", ARN + "GitHubActions"),
    ],
)
def test_people_who_share_a_role_are_told_apart_and_numbered_sessions_are_not(aws, arn, owner):
    made = Aws(aws.cloud)
    made._caller = arn
    assert made.owner == owner
    assert made.caller == (arn if ":user/" in arn else ARN[:-1])


def test_a_name_means_a_file_in_the_folder_or_nothing(tmp_path):
    assert paths.inside(tmp_path, "adapter/a b.json") == tmp_path / "adapter/a b.json"
    for name in ("/etc/passwd", "..", "a/../b", "a//b", "", ".", "a\0b", "a\x1bb", "a\\b", os.fspath(tmp_path)):
        with pytest.raises(Problem, match="names no file in"):
            paths.inside(tmp_path, name)


ESCAPE = "\x1b]0;mine\x07\x1b[2J"


def test_nothing_that_others_have_written_is_obeyed_by_a_terminal(aws, store, settings, tmp_path, capsysbinary):
    plant(store, owner=world.CALLER)
    store.put(f"runs/{RUN}/log/000000000000", f"one\n{ESCAPE}tw".encode() + "ö".encode()[:1])
    store.put(f"runs/{RUN}/log/{len(ESCAPE.encode()) + 7:012d}", "ö".encode()[1:] + b"\nfour \x9b\xff\r\n")
    show.logs(aws, settings(), RUN, False, None)
    out = capsysbinary.readouterr().out
    assert out.decode(errors="replace").splitlines()[1] == "\\x1b]0;mine\\x07\\x1b[2Jtwö" and b"\x1b" not in out
    assert out.endswith(b"\xff\r\n"), "what is no text and no control character stays the bytes that it is"
    evil = {name: f"{ESCAPE} {name}" for name in ("phase", "reason", "evidence", "hint", "who", "verb", "token")}
    now = runs.now()
    store.put(f"runs/{RUN}/state.json", json.dumps(evil | {"since": now}).encode())
    store.put("locks/me.json", json.dumps(evil | {"since": now, "pid": 1}).encode())
    shown = status.text(aws, settings("box.name=me"), {})[0] + str(runs.state(store, RUN)) + lock.holder(aws, "me")
    assert "mine" in shown and "\x1b" not in shown and "\x07" not in shown
    screen.note(f"the box says {ESCAPE}")
    screen.result(f"the box says {ESCAPE}")
    written = capsysbinary.readouterr()
    assert b"\x1b" not in written.err + written.out and written.out.count(b"mine") == 1


def test_a_spreadsheet_computes_nothing_that_others_have_written(aws, store, settings, tmp_path, capsys):
    plant(store, owner=world.CALLER, files={"metrics.json": b"{}"})
    show.spreadsheet(aws, settings(), None, tmp_path, lambda metrics: [{"name": "=cmd()", "base": -0.5}])
    assert capsys.readouterr().out == "name,base\n'=cmd(),-0.5\n"


HUGE = 10**400  # JSON may hold it, no float can


def test_a_number_that_is_none_of_this_machine_s_ends_no_verb(aws, store, settings):
    """`"idle": 1000...` in one report ended everybody's `inv status` with a traceback."""
    report = {"seen": "2099-11-22T06:00:00+00:00", "run": "", "idle": HUGE, "idle_limit": 1, "life_left": 1}
    store.put("boxes/i-1/2099.json", json.dumps(report).encode())
    assert status._report(store, "boxes/i-1/2099.json") is None
    assert progress.progress_line("running", [{"event": "step", "step": 1, "steps": 2, "loss": HUGE}]).endswith("a trainer writes")
    plant(store, owner=world.CALLER, more={"price": {"seconds": HUGE, "total": 1}})
    ledger._runs(store)
    store.put("locks/me.json", json.dumps({"who": "x", "pid": HUGE, "verb": "up", "token": "t", "since": runs.now()}).encode())
    assert "somebody" in lock.holder(aws, "me")


LIFE = {"instance": "i-1", "instance_type": "g6.2xlarge", "launched": "2026-01-01T00:00:00+00:00", "stopped": None}
REPORT = {"instance": "i-1", "started": "2026-01-01T00:00:00+00:00", "seen": "2026-01-01T00:00:00+00:00", "ran": ""}


@pytest.mark.parametrize(
    ("odd_life", "odd_report"),
    [
        ({"launched": "2026-01-01T00:00:00"}, {"seen": "2026-01-01T00:00:00"}),
        ({"launched": "9999-12-31T23:59:59+00:00"}, {"started": "0001-01-01T00:00:00+00:00"}),
        ({"stopped": 7}, {"seen": None}),
        ({"instance_type": ["g6.2xlarge"]}, {"ran": {}}),
        ({"instance": {}}, {"instance": []}),
    ],
)
def test_a_start_or_a_report_that_nobody_can_reckon_with_is_left_out_of_the_ledger(aws, store, settings, odd_life, odd_report):
    """A moment without a zone ended everybody's `inv costs`, `inv status`, and `inv train` with a `cost.limit`, with a traceback."""
    for number, (life, report) in enumerate([(LIFE, REPORT), (LIFE | odd_life, REPORT | odd_report)]):
        store.put(f"lives/i-1/{number}.json", json.dumps(life).encode())
        store.put(f"boxes/i-1/{number}.json", json.dumps(report).encode())
    (one,) = box_usage.usage(store, None)
    assert (one.instance, one.instance_type) == ("i-1", "g6.2xlarge")
    assert limit.remaining_life(aws, settings("cost.limit=5"), "i-1").life_left > 0
    seen = REPORT | {"seen": "2026-01-01T00:00:00", "run": "", "idle": 1, "idle_limit": 1, "life_left": 1}
    store.put("boxes/i-1/seen.json", json.dumps(seen).encode())
    assert status._report(store, "boxes/i-1/seen.json") is None


def test_brackets_that_others_have_written_are_no_markup(aws, store, settings, tmp_path, capsys):
    """A phase `[/x]` ended everybody's `inv status` with a traceback of rich's, and `[x]` was left out of what is shown."""
    plant(store, owner=world.CALLER)
    store.put(f"runs/{RUN}/state.json", json.dumps({"phase": "[/x]", "reason": "[stage] :smile:", "since": runs.now()}).encode())
    assert "[/x] ([stage] :smile:)" in status.text(aws, settings(), {})[0]
    rows = [("[/x]", "[bold]1", "2", "")]
    screen.print(evaluations.scores_table(rows, "[/title]"))
    shown = capsys.readouterr().out
    assert "[/x] " in shown and "[bold]1" in shown and "[/title]" in shown


def test_every_table_goes_to_the_screen_that_takes_texts_as_they_are():
    places = [path for room in ("remote", "trainer") for path in (paths.ROOT / room).rglob("*.py")]
    for path in [*places, paths.ROOT / "tasks.py"]:
        assert not re.search(r"\bConsole\(", path.read_text(encoding="utf-8")), path


def test_a_command_that_is_named_holds_nothing_that_a_shell_would_carry_out(aws, store, settings, capsys):
    """Who has a run is in an object of the bucket, and stood as it was in a command to be pasted."""
    run_id = start.prepare(aws, settings("box.name=ours"), "reg/name@sha256:1", settings.root, "i-1").run_id
    store.put(f"runs/{run_id}/box.json", json.dumps({"name": "x; touch /tmp/bad #", "instance": "i-2"}).encode())
    store.put(f"runs/{run_id}/state.json", json.dumps({"phase": "running", "since": "2026-01-01T00:00:00+00:00"}).encode())
    clean.choose(aws, "ours", None, True, False, (), ())
    command = re.search("`(inv clean -- .*?)`", capsys.readouterr().err)[1]
    assert len(shlex.split(command)) == 4
    (settings.root / "manifest.json").write_text(json.dumps({"kind": "x; touch /tmp/bad", "name": "quickstart"}))
    with pytest.raises(Problem) as caught:
        hub.publish(aws, None, RUN, settings.root, settings(), None, print)
    assert len(shlex.split(re.search("`(.*)`", caught.value.hint)[1])) == 6


@pytest.mark.parametrize("body", [None, b"[]\n", b"not json\n", b"{}\n", b"\xff\n", b'{"output": "one"}\n[1]\n'])
def test_answers_that_no_box_has_given_are_a_sentence(aws, store, body):
    name = "questions/me/" + "0" * 32
    if body is not None:
        store.put(f"{name}.answers", body)
    with pytest.raises(Problem, match="is not a box.s answer"):
        predictions.collect(aws, name)
    assert list(store.names("questions/")) == []


@pytest.mark.parametrize("scores", [b"{}", b'{"rows": 3}', b'{"rows": 3, "task": [], "trained_on": 1}'])
def test_scores_that_no_trainer_has_written_are_a_sentence(aws, store, scores):
    from trainer.record.report import summary

    store.put(f"runs/{RUN}/evaluations/mine.json", scores)
    with pytest.raises(Problem, match="is not as a trainer writes it"):
        evaluations.show_scores(aws, RUN, "mine", summary)
