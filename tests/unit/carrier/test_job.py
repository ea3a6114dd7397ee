"""A job of the fleet from its start to its end: nothing is lost, nothing is trained twice, and its exit says whether to try again."""

import hashlib
import json

import pytest

from carrier import instance, process, state
from carrier.claim import Claim
from conf.fleet_job import HOLDER, Exit
from tests.unit.carrier.conftest import RUN

FOREVER = "print('step 1', flush=True)\nwhile True: time.sleep(0.02)"
OBEDIENT = (
    """
import signal
def end(*_):
    checkpoint(7)
    state("failed", reason="stopped")
    print("saved", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
"""
    + FOREVER
)


def test_a_run_is_delivered_with_its_manifest_and_the_instance_is_left_clean(fleet):
    assert fleet.job("print('one'); checkpoint(1); seal()").run() == Exit.finished
    assert {"manifest.json", "adapter/weights", "log.txt", "log/000000000000", "state.json", "box.json"} <= fleet.names()
    assert (fleet.json("state.json")["phase"], fleet.log()) == ("done", b"one\n")
    assert not [name for name in fleet.names() if name.startswith("checkpoints/")]
    assert list((fleet.root / "runs").iterdir()) == []


def test_a_second_job_of_a_finished_run_does_nothing(fleet):
    fleet.put("manifest.json", b"{}")
    assert fleet.job("seal()").run() == Exit.finished
    assert fleet.json("state.json")["phase"] == "done" and "box.json" not in fleet.names()


def test_a_run_that_was_cancelled_is_not_begun(fleet):
    fleet.put("state.json", json.dumps({"phase": "cancelled"}).encode())
    assert fleet.job("seal()").run() == Exit.finished
    assert fleet.json("state.json")["phase"] == "cancelled"


def test_it_goes_on_where_another_instance_ended(fleet):
    for name, body in {"log/000000000000": "one\n", "log/000000000004": "two\n", "events.jsonl": '{"event": 1}\n'}.items():
        fleet.put(name, body.encode())
    for name in ("step-000003/COMPLETE", "step-000003/adapter.bin", "step-000004/adapter.bin"):
        fleet.put(f"checkpoints/{name}", b"{}")
    look = "print(sorted(str(p.relative_to(folder)) for p in folder.glob('checkpoints/*/*'))); seal()"
    assert fleet.job(look).run() == Exit.finished
    assert fleet.log() == b"one\ntwo\n['checkpoints/step-000003/COMPLETE', 'checkpoints/step-000003/adapter.bin']\n"
    assert fleet.get("events.jsonl") == b'{"event": 1}\n'


def test_inputs_lie_where_the_trainer_looks_for_them_and_have_the_bytes_of_their_names(fleet):
    look = "print(sorted(p.read_text() for p in (folder.parent.parent / 'inputs').iterdir())); seal()"
    assert fleet.job(look).run() == Exit.finished
    assert fleet.log() == b"['train', 'validation']\n"


def test_an_input_with_other_bytes_is_refused(fleet):
    name = next(iter(fleet.store.names("inputs/")))
    fleet.store.put(name, b"other")
    assert fleet.job("seal()").run() == Exit.wrong
    assert fleet.json("state.json")["reason"] == "damaged_run"


def test_settings_that_have_changed_since_the_laptop_read_them_are_not_trained(fleet):
    fleet.put("config.yaml", fleet.get("config.yaml") + b"\n")
    assert fleet.job("seal()").run() == Exit.wrong
    assert (fleet.json("state.json")["phase"], fleet.json("state.json")["reason"]) == ("failed", "damaged_run")
    assert "manifest.json" not in fleet.names()


@pytest.mark.parametrize("name", ["checkpoints/step-000001/../../../../evil", "checkpoints/step-000001//evil"])
def test_a_name_in_s3_leads_nowhere_else(fleet, name):
    fleet.put("checkpoints/step-000001/COMPLETE", b"{}")
    fleet.put(name, b"evil")
    assert fleet.job("seal()").run() == Exit.wrong
    assert not list(fleet.root.rglob("evil"))


def test_a_run_that_somebody_is_at_work_on_is_left_alone(fleet):
    for holder in ({"name": "a box", "instance": "i-2"}, {"name": HOLDER, "instance": "job-2"}):
        fleet.put("box.json", json.dumps(holder).encode())
        fleet.put("state.json", state.State("running").text())
        assert fleet.job("seal()").run() == Exit.finished
        assert fleet.json("box.json") == holder and fleet.json("state.json")["phase"] == "running"


@pytest.mark.parametrize(
    ("holder", "phase"),
    [
        ({"name": HOLDER, "instance": ""}, "created"),  # handed in, and this is the job
        ({"name": HOLDER, "instance": "job-1"}, "running"),  # an earlier attempt, whose instance is gone
        ({"name": HOLDER, "instance": "job-2"}, "created"),  # between two attempts
        ({"name": "a box", "instance": "i-2"}, "failed"),
        ({"name": "a box"}, ""),
    ],
)
def test_a_run_that_nobody_is_at_work_on_is_taken(fleet, holder, phase):
    fleet.put("box.json", json.dumps(holder).encode())
    fleet.put("state.json", state.State(phase).text())
    assert fleet.job("seal()").run() == Exit.finished
    assert (fleet.json("box.json")["instance"], fleet.json("box.json")["host"]) == ("job-1", "i-1")


def test_of_two_jobs_that_want_a_run_at_once_one_has_it(fleet, monkeypatch):
    first, second = (Claim(fleet.store, RUN, job, {}) for job in ("job-1", "job-2"))
    put = fleet.store.claim
    monkeypatch.setattr(fleet.store, "claim", lambda *words: (monkeypatch.undo(), second.take(), put(*words))[2])
    assert not first.take() and fleet.json("box.json")["instance"] == "job-2"


def test_a_job_lets_go_of_a_run_that_goes_on_elsewhere(fleet):
    going = fleet.job(FOREVER)
    other = json.dumps({"name": "a box", "instance": "i-2"}).encode()
    fleet.when(lambda: fleet.log(), lambda: fleet.put("box.json", other))
    assert going.run() == Exit.finished
    assert fleet.json("box.json")["instance"] == "i-2" and fleet.json("state.json")["phase"] == "running"


def test_after_a_spot_notice_all_is_shipped_and_the_job_stays_until_its_instance_ends(fleet, monkeypatch):
    going = fleet.job(OBEDIENT)
    fleet.when(lambda: fleet.log(), lambda: monkeypatch.setattr(instance, "notice", lambda: "2026-12-01T00:02:00Z"))
    fleet.when(
        lambda: b"saved" in fleet.log() and fleet.json("state.json")["phase"] == "created", lambda: setattr(going, "asked_to_end", True)
    )
    assert going.run() == Exit.again
    assert "2026-12-01T00:02:00Z" in fleet.json("state.json")["evidence"] and fleet.log() == b"step 1\nsaved\n"
    assert "checkpoints/step-000007/COMPLETE" in fleet.names()
    monkeypatch.setattr(instance, "notice", lambda: None)  # the next instance
    assert fleet.job("print('on'); seal()", attempt=2).run() == Exit.finished
    assert fleet.log() == b"step 1\nsaved\non\n" and fleet.json("box.json")["attempt"] == "2"


def test_the_last_attempt_ends_the_run_with_the_setting_that_allows_more(fleet, monkeypatch):
    """And it does not wait for the end of its instance: whoever hands the run over again need not either."""
    monkeypatch.setattr(instance, "notice", lambda: "2026-12-01T00:02:00Z")
    assert fleet.job(FOREVER, attempt=3).run() == Exit.again
    assert "fleet.attempts" in fleet.json("state.json")["evidence"] and fleet.json("state.json")["reason"] == "stopped"


@pytest.mark.parametrize(
    ("wanted", "phase", "why", "code"),
    [
        ({}, "cancelled", ("", "somebody asked for it"), Exit.finished),
        ({"reason": "pruned", "evidence": "loss 3 after step 8"}, "cancelled", ("pruned", "loss 3 after step 8"), Exit.finished),
        ({"reason": "out_of_memory", "evidence": "not true"}, "cancelled", ("", "somebody asked for it"), Exit.finished),
        (None, "failed", ("stopped", "AWS Batch ended the job"), Exit.again),
    ],
)
def test_told_to_end_it_saves_and_says_who_wanted_it(fleet, wanted, phase, why, code):
    if wanted is not None:
        fleet.put("stop.json", json.dumps(wanted).encode())
    going = fleet.job(OBEDIENT)
    fleet.when(lambda: fleet.log(), lambda: setattr(going, "asked_to_end", True))
    assert going.run() == code
    told = fleet.json("state.json")
    assert (told["phase"], (told["reason"], told["evidence"])) == (phase, why) and fleet.log() == b"step 1\nsaved\n"
    assert "checkpoints/step-000007/COMPLETE" in fleet.names()


def test_time_that_is_over_ends_the_run_with_the_setting_that_says_so(fleet):
    assert fleet.job(OBEDIENT, seconds=0.5).run() == Exit.failed
    assert fleet.json("state.json")["evidence"].startswith("fleet.max_hours is over")


def test_money_that_earlier_attempts_have_spent_counts(fleet):
    before = {"name": HOLDER, "instance": "job-1", "started": "2026-12-01T00:00:00Z", "used": 0}
    fleet.put("box.json", json.dumps(before).encode())
    fleet.put("state.json", json.dumps({"phase": "created", "heartbeat": "2026-12-01T01:00:00Z"}).encode())
    assert fleet.job(FOREVER, seconds=3600, limit="cost.limit").run() == Exit.failed
    assert fleet.json("state.json")["evidence"] == "cost.limit is over: it took 60 min"


def test_a_trainer_that_neither_writes_nor_computes_is_ended(fleet, monkeypatch):
    settings = fleet.get("config.yaml").replace(b"idle_minutes: 20.0", b"idle_minutes: 0.005")
    fleet.put("config.yaml", settings)
    fleet.config = hashlib.sha256(settings).hexdigest()
    monkeypatch.setattr(instance, "computing", lambda: False)
    assert fleet.job(FOREVER).run() == Exit.failed
    assert "written nothing" in fleet.json("state.json")["evidence"]


def test_what_the_kernel_ends_for_memory_is_said(fleet, monkeypatch):
    counts = iter([0, 1])
    monkeypatch.setattr(instance, "killed_for_memory", lambda: next(counts))
    assert fleet.job("os.kill(os.getpid(), 9)").run() == Exit.failed
    assert fleet.json("state.json")["reason"] == "out_of_memory"


@pytest.mark.parametrize(
    ("trains", "reason", "evidence"),
    [
        ("os.kill(os.getpid(), 9)", "killed", "signal 9"),
        ("state('failed', reason='bad_data', evidence='row 3'); sys.exit(1)", "bad_data", "row 3"),
        ("raise RuntimeError('no such thing')", "crashed", "RuntimeError: no such thing"),
    ],
)
def test_how_the_trainer_failed_is_in_the_state_and_is_not_tried_again(fleet, trains, reason, evidence):
    assert fleet.job(trains).run() == Exit.failed
    assert fleet.json("state.json")["reason"] == reason and evidence in fleet.json("state.json")["evidence"]


def test_the_trainer_has_no_right_of_the_carriers_and_the_token_is_in_a_file(fleet, monkeypatch):
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/secret")
    monkeypatch.setenv("HF_HOME", "/cache/hub-cache")
    look = """
print(sorted(name for name in os.environ if name.startswith(("AWS", "ECS", "HUB_SECRET", "BUCKET"))), os.environ["HF_HOME"])
print(oct(os.stat(os.environ["HF_TOKEN_PATH"]).st_mode), open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0])
print("the token is", open(os.environ["HF_TOKEN_PATH"]).read().strip())
seal()
"""
    assert fleet.job(look).run() == Exit.finished
    one, two, three = fleet.log().splitlines()
    assert (one, two) == (b"[] /cache/hub-cache", b"0o100600 1")
    assert three.startswith(b"the token is **") and set(three.removeprefix(b"the token is ")) == set(b"*")
    assert b"the token is **" in fleet.get("log.txt")


def test_where_one_is_root_and_the_image_has_its_user_the_trainer_is_another(monkeypatch):
    monkeypatch.setattr(process.os, "geteuid", lambda: 0)
    monkeypatch.setattr(process.pwd, "getpwnam", lambda name: {"trainer": type("entry", (), {"pw_uid": 10001})}[name])
    assert process.owner() == 10001
    monkeypatch.setattr(process.os, "geteuid", lambda: 1000)
    assert process.owner() is None


def test_an_instance_that_shows_no_gpu_is_left_for_another(fleet, monkeypatch):
    monkeypatch.setattr(instance, "gpus_answer", lambda: False)
    assert fleet.job("seal()").run() == Exit.again
    assert fleet.json("state.json")["phase"] == "created"


def test_an_end_that_s3_does_not_take_is_sent_again(fleet, monkeypatch):
    from botocore.exceptions import EndpointConnectionError

    going, put, failed = fleet.job("print('one'); seal()"), fleet.store.put, []

    def cut(name, body):
        if "/log/" in name and len(failed) < 3:
            failed.append(name)
            raise EndpointConnectionError(endpoint_url="s3")
        put(name, body)

    monkeypatch.setattr(fleet.store, "put", cut)
    assert going.run() == Exit.finished
    assert len(failed) == 3 and fleet.log() == b"one\n" and fleet.json("state.json")["phase"] == "done"


def unanswered(fleet, monkeypatch, error, count):
    """S3 does not list the run's objects, so many times."""
    names, failed = fleet.store.names, []

    def cut(under):
        if len(failed) < count:
            failed.append(under)
            raise error
        return names(under)

    monkeypatch.setattr(fleet.store, "names", cut)
    return failed


def test_at_the_start_aws_is_waited_for_and_no_attempt_is_used_up(fleet, monkeypatch):
    from s3transfer.exceptions import RetriesExceededError

    failed = unanswered(fleet, monkeypatch, RetriesExceededError(TimeoutError()), 3)
    assert fleet.job("seal()").run() == Exit.finished
    assert len(failed) == 3 and fleet.json("state.json")["phase"] == "done"


def test_what_aws_refuses_at_the_start_is_left_to_another_attempt(fleet, monkeypatch):
    from botocore.exceptions import ClientError

    refusal = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    failed = unanswered(fleet, monkeypatch, ClientError(refusal, "ListObjectsV2"), 9)
    with pytest.raises(ClientError):
        fleet.job("seal()").run()
    assert len(failed) == 1


def test_checkpoints_that_cannot_be_removed_make_no_finished_run_fail(fleet, monkeypatch):
    from botocore.exceptions import EndpointConnectionError

    def cut(names):
        raise EndpointConnectionError(endpoint_url="s3")

    monkeypatch.setattr(fleet.store, "remove", cut)
    assert fleet.job("checkpoint(1); seal()").run() == Exit.finished


def test_what_leads_out_of_the_runs_folder_is_not_sent(fleet, tmp_path):
    (tmp_path / "secret").write_text("of root")
    plant = f"(folder / 'events.jsonl').symlink_to({str(tmp_path / 'secret')!r}); seal()"
    assert fleet.job(plant).run() == Exit.failed
    assert fleet.json("state.json")["reason"] == "damaged_run" and not {"events.jsonl", "manifest.json"} & fleet.names()


def test_the_ledger_can_tell_what_the_instance_was_when_ec2_has_forgotten_it(fleet, monkeypatch):
    document = {"instanceId": "i-1", "instanceType": "g6.2xlarge", "availabilityZone": "us-east-1b", "pendingTime": "2026-11-30T12:00:00Z"}
    said = {"dynamic/instance-identity/document": json.dumps(document), "meta-data/instance-life-cycle": "spot"}
    monkeypatch.setattr(instance, "_said", said.get)
    written = {"instance": "i-1", "instance_type": "g6.2xlarge", "zone": "us-east-1b", "launched": "2026-11-30T12:00:00Z", "spot": True}
    assert fleet.job("seal()").run() == Exit.finished
    assert json.loads(fleet.store.get("fleet/i-1.json", 4096)) == written
    fleet.store.put("fleet/i-1.json", json.dumps(written | {"ended": "2026-11-30T13:00:00Z"}).encode())
    fleet.job("seal()", number="job-2")._note_instance()
    assert "ended" in json.loads(fleet.store.get("fleet/i-1.json", 4096)), "what was added stays"
