"""What a fleet's job tells somebody of its run's end: once, by whatever job, and nothing that hangs on a receiver."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3
import pytest
import yaml

from carrier import instance, notices
from conf.fleet_job import Exit
from tests.unit.carrier.conftest import RUN

SECRET = "fine-tune-slm/webhook-of-a-job"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.server.answers and (status := self.server.answers.pop(0)) != 200:
            if status:  # 0: no answer at all
                self.send_error(status)
            return
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver(aws, fleet, monkeypatch):
    """Whoever the run's settings post to."""
    server = HTTPServer(("127.0.0.1", 0), Answer)
    server.taken, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client, address = boto3.client("secretsmanager"), f"http://127.0.0.1:{server.server_port}/s3cretAddress"
    try:
        client.create_secret(Name=SECRET, SecretString=address)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId=SECRET, SecretString=address)
    told(fleet, SECRET)
    monkeypatch.setattr(notices, "PAUSE", 0.01)
    yield server
    server.shutdown()
    server.server_close()


def told(fleet, name: str, *events: str) -> None:
    """The run's settings name this secret, and all events or these."""
    settings = yaml.safe_load(fleet.get("config.yaml"))
    settings["notify"] |= {"webhook": name} | ({"on": list(events)} if events else {})
    body = yaml.safe_dump(settings).encode()
    fleet.put("config.yaml", body)
    fleet.config = hashlib.sha256(body).hexdigest()


def kept(fleet) -> dict[str, str]:
    return {name: fleet.json(name)["state"] for name in fleet.names() if name.startswith("notices/")}


SCORES = "(folder / 'metrics.json').write_text(json.dumps({'base': {'macro_f1': 0.1234}, 'tuned': {'macro_f1': 0.7654}})); seal()"


def test_a_finished_run_is_told_of_once_with_its_score_whatever_job_comes_after(fleet, receiver):
    assert fleet.job(SCORES).run() == Exit.finished
    assert fleet.job(SCORES, number="job-2").run() == Exit.finished
    (sent,) = receiver.taken
    assert (sent["event"], sent["run"], sent["instance"]) == ("done", RUN, "i-1")
    assert sent["what"] == "macro-F1 0.765 on held-out rows (base model: 0.123)" and "`inv publish`" in sent["next"]
    assert sent["cost"].endswith("min of this instance, at a price that is not known")
    assert list(kept(fleet).values()) == ["sent"] and fleet.json("state.json")["phase"] == "done"


def test_a_failure_is_told_with_its_reason_and_is_text_and_nothing_else(fleet, receiver):
    evidence = "two\\nlines and \\u001b[31m <!channel>"
    assert fleet.job(f"state('failed', reason='crashed', evidence='{evidence}', hint='`inv logs`'); sys.exit(1)").run() == Exit.failed
    (sent,) = receiver.taken
    assert sent["event"] == "failed" and sent["what"].startswith("crashed: two lines and") and "\n" not in sent["what"]
    assert sent["next"] == "`inv logs`"


def test_a_spot_notice_is_told_for_each_instance_and_the_run_goes_on(fleet, receiver, monkeypatch):
    monkeypatch.setattr(instance, "notice", lambda: "2026-12-01T00:02:00Z")
    for attempt in (1, 2):
        going = fleet.job("while True: time.sleep(0.02)", attempt=attempt)
        fleet.when(lambda attempt=attempt: len(receiver.taken) == attempt, lambda going=going: setattr(going, "asked_to_end", True))
        assert going.run() == Exit.again
    assert [sent["event"] for sent in receiver.taken] == ["spot", "spot"]
    assert "goes on by itself" in receiver.taken[0]["what"]


@pytest.mark.parametrize(("answers", "became", "count"), [([500, 200], "sent", 2), ([500] * 3, "refused", 3), ([0], "unknown", 1)])
def test_what_was_refused_is_sent_again_and_what_may_have_been_taken_is_not(fleet, receiver, answers, became, count):
    receiver.answers += answers
    assert fleet.job("seal()").run() == Exit.finished
    assert len(receiver.taken) == count and list(kept(fleet).values()) == [became]


def test_nobody_is_told_of_what_he_has_not_asked_for(fleet, receiver):
    told(fleet, SECRET, "failed")
    assert fleet.job("seal()").run() == Exit.finished and receiver.taken == [] and kept(fleet) == {}


def test_a_secret_that_is_missing_ends_no_run(fleet, receiver):
    told(fleet, SECRET)
    boto3.client("secretsmanager").delete_secret(SecretId=SECRET, ForceDeleteWithoutRecovery=True)
    assert fleet.job("seal()").run() == Exit.finished
    assert list(kept(fleet).values()) == ["refused"] and fleet.json("state.json")["phase"] == "done"
