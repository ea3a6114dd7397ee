"""What the box tells somebody: the bodies, each notice once, and an address that stands nowhere. Bash and curl are the real ones."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import scripts

from conf.text import webhook
from remote.account import notices
from remote.plan.script import body, compose, settings_block
from tests.unit.remote.scripts.test_script_ends import RUN, Box

SECRET = "T0/B0/s3cretAddress"
CAPTURED = 'printf "%s\\n" "$*" >>argv; env >>environment; exec /usr/bin/curl "$@"'
SETTINGS = {"BUCKET": "b", "PREFIX": "p", "LOG_GROUP": "/g", "STREAM_PREFIX": "s", "HUB_SECRET": "hub", "TOKEN_AGE": 0}
SETTINGS |= {"REGION": "r", "MOUNT_PATH": "/mnt/training", "BOX_NAME": "mine", "NOTIFY_ON": "done failed stopped spot idle cost"}
BEGUN = f"instance=i-1 since=2026-11-30T20:00:00Z started=0 run_id={RUN}\nrun=$MOUNT/runs/$run_id target=s3://b/p/runs/$run_id\n"
AWS = """
echo "$*" >>aws.log
case "$*" in
  *secretsmanager*) cat address ;;
  *get-caller-identity*) echo arn:aws:sts::123456789012:assumed-role/box/i-1 ;;
  *"sns publish"*) cat "$(echo "$*" | sed 's|.*file://||')" >>mail; [ ! -e refusal ] || { cat refusal >&2; exit 254; } ;;
  *"s3 ls"*) [ -e elsewhere ] ;;
esac
"""


class Receiver(HTTPServer):
    """Of webhooks: what it was sent, and what it answers; 0 is nothing at all."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.taken = 200, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.taken.append((self.path, json.loads(text)))
        if self.server.status:
            self.send_response(self.server.status)
            self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def box(tmp_path, receiver):
    made = Box(tmp_path)
    made.tool("curl", CAPTURED)
    made.tool("aws", AWS)
    made.put("address", receiver.address(SECRET))
    made.put("opt/fine-tune-slm/price", "0.9776\n")
    return made


def told(box: Box, driver: str, topic: str = "", webhook: str = "fine-tune-slm/webhook", **settings) -> str:
    """What is said when a supervisor with these functions does this, and waits for what it has begun."""
    every = SETTINGS | {"TOPIC": topic, "WEBHOOK_SECRET": webhook} | settings
    text = f"#!/bin/bash\n{settings_block(every)}" + "\n".join(map(body, ("lib", "container", "ship", "notify")))
    done = scripts.run(f"{text}\nmkdir -p $STATE\n{BEGUN}{driver}\nwait\n", box.root)
    assert done.code == 0, done.stderr
    return done.stderr


def later(box: Box) -> None:
    """A minute later: what was tried is tried again."""
    for path in (box.root / "opt/fine-tune-slm/notices/tried").iterdir():
        path.unlink()


def places(box: Box) -> list[str]:
    return sorted(str(path.relative_to(box.root / "opt/fine-tune-slm/notices")) for path in box.root.glob("opt/fine-tune-slm/notices/*/*"))


IDLE = 'tell_stop idle "idle: no run and no command for 20 min" "\\`inv up\\` starts it again"'
SCORED = {"task": "x", "base": {"macro_f1": 0.1234567, "fields": {"a": {"f1": 0.9}}}, "tuned": {"rows": 3, "macro_f1": 0.7654321}}


def test_each_receiver_gets_the_body_that_it_documents(box, receiver):
    folder = box.going_on(phase="done")
    (folder / "metrics.json").write_text(json.dumps(SCORED, indent=1))
    addresses = f"slack+{receiver.address(SECRET)}", f"ntfy+{receiver.address('my_topic')}?auth=x", receiver.address(SECRET)
    for address in addresses:
        box.put("address", address + "\n")
        told(box, "tell_end current")
        for path in box.root.glob("opt/fine-tune-slm/notices/*/*"):
            path.unlink()
    (slack, slack_body), (ntfy, ntfy_body), (other, plain) = receiver.taken
    assert (slack, ntfy, other) == (f"/{SECRET}", "/?auth=x", f"/{SECRET}")
    for address, (path, sent) in zip(addresses, receiver.taken, strict=True):  # as `inv notify.test` does it
        form, url, topic = notices.parse_address(address, "a secret")
        assert url.endswith(path) and notices.body(form, topic).keys() == sent.keys()
    score = "macro-F1 0.765 on held-out rows (base model: 0.123)"
    cost = "17 min of this box, $0.27 on demand"
    carriers = [webhook.body(form, name, plain) for form, _, name in map(webhook.parse, addresses)]
    assert [slack_body, ntfy_body, plain] == carriers, "a fleet's runs are told of in the same words"
    assert slack_body == {"text": f"*fine-tune-slm: {RUN} is done*\n{score}\nNext: {plain['next']}\n{cost} so far."}
    assert ntfy_body["topic"] == "my_topic" and ntfy_body["tags"] == ["done"] and score in ntfy_body["message"]
    assert ntfy_body["title"] == plain["title"] == f"fine-tune-slm: {RUN} is done"
    assert plain | {"time": ""} == {
        **{"event": "done", "run": RUN, "instance": "i-1", "time": "", "cost": cost, "title": plain["title"], "what": score},
        "next": "`inv publish`, `inv report`, then `inv down`",
    }


def test_what_a_trainer_says_is_text_in_a_notice_and_nothing_else(box, receiver):
    box.going_on(phase="failed")
    evidence = '<!channel> $(touch RAN) "quoted\\" and é and hf_secret'
    (box.mount / f"runs/{RUN}/state.json").write_text(
        json.dumps({"phase": "failed", "reason": "crashed", "evidence": evidence, "hint": "`inv logs`"}, ensure_ascii=False)
    )
    box.put("address", f"slack+{receiver.address(SECRET)}")
    box.put("run/fine-tune-slm/hub-tokens", "hf_secret\n")
    told(box, "tell_end current", topic="t")
    (_, slack) = receiver.taken[0]
    assert "&lt;!channel&gt; $(touch RAN)" in slack["text"] and "Next: `inv logs`" in slack["text"]
    assert not list(box.root.rglob("RAN")) and "hf_secret" not in slack["text"]
    assert f"fine-tune-slm: {RUN} has failed\n\ncrashed: <!channel>" in (box.root / "mail").read_text()


def test_a_notice_is_sent_once_whoever_dies_and_is_begun_again(box, receiver):
    box.going_on(phase="done")
    for _ in range(3):
        told(box, "tell_end current", topic="fine-tune-slm")
        told(box, "begin_sending now")
        later(box)
    assert len(receiver.taken) == 1 and (box.root / "mail").read_text().count("is done") == 1
    (kept,) = {place.rpartition(".")[0] for place in places(box)}
    assert kept.startswith(f"ended/done-{RUN}-20") and (box.root / "aws.log").read_text().count(f"s3://b/p/runs/{RUN}/notices/done-") >= 4
    (box.mount / "current").write_text(f"{RUN}\n")  # another attempt
    os.utime(box.mount / "current", (1, 1))
    told(box, "tell_end current")
    assert len(receiver.taken) == 2


def test_what_was_being_sent_when_its_sender_died_is_not_sent_again(box, receiver):
    told(box, f"begin_sending() {{ :; }}\n{IDLE}", topic="fine-tune-slm")
    for path in box.root.glob("opt/fine-tune-slm/notices/waiting/*"):
        path.rename(path.parents[1] / "sending" / path.name)
    assert "unknown, its sender was killed" in told(box, "begin_sending now")
    assert receiver.taken == [] and not [place for place in places(box) if place.startswith(("sending", "waiting"))]


@pytest.mark.parametrize("broken", ["500", "dead", "no address", "no secret"])
def test_what_nobody_took_is_tried_again_until_it_is_sent(box, receiver, broken):
    address = (box.root / "address").read_text()
    receiver.status = 500 if broken == "500" else 200
    if broken == "no secret":
        (box.root / "address").unlink()
    elif broken != "500":
        box.put("address", f"http://127.0.0.1:1/{SECRET}" if broken == "dead" else "please ask Anna")
    assert "was not sent: " in (said := told(box, IDLE)) and SECRET not in said
    assert "was not sent" not in told(box, "begin_sending"), "within the minute it is not tried again"
    receiver.status = 200
    box.put("address", address)
    later(box)
    receiver.taken.clear()
    told(box, "begin_sending")
    told(box, "begin_sending now")
    assert [each["event"] for _, each in receiver.taken] == ["idle"]


def test_what_is_an_hour_old_is_not_sent_any_more(box, receiver):
    receiver.status = 500
    told(box, IDLE)
    (waiting,) = box.root.glob("opt/fine-tune-slm/notices/waiting/*")
    os.utime(waiting, (1, 1))
    assert "over, it could not be sent for 60 minutes" in told(box, "begin_sending now")
    assert len(receiver.taken) == 1


def test_what_was_taken_without_an_answer_is_not_sent_again(box, receiver):
    receiver.status = 0
    assert "unknown, the webhook gave no answer" in told(box, IDLE)
    receiver.status = 200
    later(box)
    told(box, "begin_sending now")
    assert len(receiver.taken) == 1


@pytest.mark.parametrize(
    ("refusal", "again"),
    [
        ("An error occurred (AuthorizationError) when calling the Publish operation: not authorized", True),
        ('Could not connect to the endpoint URL: "https://sns.r.amazonaws.com/"', True),
        ('Read timeout on endpoint URL: "https://sns.r.amazonaws.com/"', False),
    ],
)
def test_mail_is_published_again_only_where_it_was_surely_not_taken(box, refusal, again):
    box.put("refusal", refusal)
    told(box, IDLE, topic="fine-tune-slm", webhook="")
    assert bool(list(box.root.glob("opt/fine-tune-slm/notices/waiting/*"))) is again
    (published,) = [line for line in (box.root / "aws.log").read_text().splitlines() if "sns publish" in line]
    assert (
        "--topic-arn arn:aws:sns:r:123456789012:fine-tune-slm --subject fine-tune-slm: box mine (i-1) stops --message file://" in published
    )


def test_a_run_that_another_box_has_told_of_is_not_told_of_again(box, receiver):
    box.going_on(phase="done")
    box.put("elsewhere", "")
    told(box, "tell_end current")
    assert receiver.taken == []


def test_only_what_is_asked_for_is_told_and_nothing_where_nobody_hears_of_it(box, receiver):
    box.going_on(phase="failed")
    told(box, f"{IDLE}\ntell_end current", NOTIFY_ON="failed")
    told(box, IDLE, webhook="")
    assert [each["event"] for _, each in receiver.taken] == ["failed"]


def test_the_address_is_in_no_argument_no_environment_no_log_and_no_file(box, receiver):
    box.going_on(phase="done")
    said = told(box, "tell_end current")
    receiver.status = 500
    said += told(box, IDLE)
    assert len(receiver.taken) == 2 and SECRET not in said
    assert "--config" in (box.root / "argv").read_text()
    (box.root / "address").unlink()
    holders = [path for path in box.root.rglob("*") if path.is_file() and SECRET in path.read_text(errors="replace")]
    assert holders == []


def test_a_box_that_is_taken_down_waits_for_a_notice_that_is_being_sent(box):
    box.put("mounted", "")
    sending = box.put("opt/fine-tune-slm/notices/sending/done-x.webhook", "")
    box.tool("sleep", f"rm -f '{sending}'")
    assert box.run("stop", FORCE="no").facts["changed"] == "yes" and not sending.exists()


def supervised(box: Box, **settings) -> str:
    """The whole supervisor, until it has stopped the box."""
    text = Path(box.root / "opt/fine-tune-slm/supervise.sh")
    watch = SETTINGS | {"PERIOD": 0.2, "IDLE": 3, "LIFE": 3600, "GPU": "no", "TOPIC": "", "WEBHOOK_SECRET": "fine-tune-slm/webhook"}
    text.write_text(compose("supervise", watch | settings))
    done = scripts.run_file(text, box.root, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:1")
    assert done.code == -9, done.stderr
    return done.stderr


def test_a_run_s_end_and_the_box_s_are_told_by_the_supervisor_once_each(box, receiver):
    box.going_on(phase="uploading")
    supervised(box)
    assert [each["event"] for _, each in receiver.taken] == ["done", "idle"]
    assert receiver.taken[1][1]["what"].startswith("idle: no run and no command for")


def test_a_dead_webhook_keeps_no_box_on_and_holds_up_no_end_of_a_run(box):
    box.put("address", "http://127.0.0.1:1/")
    box.going_on(phase="running", exit="1")
    said = supervised(box, LIFE=0)
    assert "stopped-i-1-" in said and "was not sent: the webhook cannot be reached (curl: 7)" in said
    assert "stop-instances" in (box.root / "aws.log").read_text() and box.run_state()["reason"] == "stopped"
