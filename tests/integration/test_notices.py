"""Who is told what: a run's end and a box's stop come by mail and to the webhook once each, whoever dies; a dead box is told of by AWS."""

import contextlib
import json

import psutil
import pytest
import stand_in_trainer
from conftest import ODD, Laptop
from test_recovery import wait_until

from twin import world

pytestmark = pytest.mark.slow  # a minute: boxes that stop

EMAIL, SECRET = "me@example.com", "fine-tune-slm/webhook"
WEBHOOK = f"notify.webhook={SECRET}"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """Its stack has a topic, and its world a receiver of webhooks; nobody has confirmed anything yet."""
    made = Laptop(tmp_path_factory.mktemp(ODD))
    made.inv("twin.start", overrides=(f"notify.email={EMAIL}", WEBHOOK))
    yield made
    world.stop(made.state)


def posted(laptop) -> list[str]:
    return [one["body"]["event"] for one in world.posts(laptop.state)]


def mailed(laptop, words: str) -> int:
    """How many mails have these words in their subject or text."""
    return sum(words in f"{one['subject']}\n{one['text']}" for one in world.mails(laptop.state))


def box(laptop) -> dict:
    return laptop.client("ec2").describe_instances()["Reservations"][-1]["Instances"][0]


def supervisors(laptop) -> list[psutil.Process]:
    """The shells of it, without what holds its lock."""
    commands = {one: one.info["cmdline"] or [""] for one in psutil.process_iter(["cmdline"])}
    return [one for one, words in commands.items() if words[-1].startswith(str(laptop.state)) and words[0].endswith("bash")]


def test_an_address_that_is_not_confirmed_gets_nothing_and_is_named(laptop):
    (asked,) = world.mails(laptop.state)
    assert asked["to"] == EMAIL and "confirm" in asked["text"]
    printed = laptop.inv("doctor", overrides=(WEBHOOK,), ok=False).stdout
    assert f"{EMAIL} is not confirmed" in printed and f"the secret `{SECRET}` has the webhook's address" in printed
    assert "no http address in it" in laptop.inv("doctor", overrides=(f"{WEBHOOK}-2",), ok=False).stdout
    by_hand = laptop.inv("notify.test", overrides=(WEBHOOK,)).stdout
    assert f"{EMAIL} gets nothing before its owner has confirmed" in by_hand and "webhook: it answered 200" in by_hand
    assert len(world.mails(laptop.state)) == 1
    assert "1 subscriptions are confirmed" in laptop.inv("twin.mail", "--confirm").stdout
    assert f"SNS took it for {EMAIL}" in laptop.inv("notify.test").stdout
    assert mailed(laptop, "a notice by hand") == 1 and posted(laptop) == ["test"]


def test_a_receiver_that_does_not_take_it_is_told_by_hand(laptop):
    world.fault(laptop.state, "webhook-error")
    assert "webhook: it answered 500" in laptop.inv("notify.test", overrides=(WEBHOOK, "notify.email=null")).stdout
    world.fault(laptop.state, "webhook-cut")
    assert "webhook: no answer" in laptop.inv("notify.test", overrides=(WEBHOOK, "notify.email=null")).stdout


def test_ends_are_told_once_each_though_the_supervisor_is_killed_and_the_webhook_is_dead_for_a_while(laptop):
    stand_in_trainer.register(laptop.state)
    before = len(posted(laptop))
    laptop.inv("up", "deploy", "train", overrides=(WEBHOOK,))
    wait_until(lambda: posted(laptop)[before:] == ["done"] and mailed(laptop, "is done") == 1)
    last = world.posts(laptop.state)[-1]["body"]
    assert last["what"].startswith("macro-F1 0.765 on held-out rows (base model: 0.123)") and "`inv publish`" in last["next"]
    assert " min of this box, $" in last["cost"] and last["run"]
    assert any(f"{last['run']}/notices/done-" in key for key in laptop.objects())

    for shell in supervisors(laptop):
        with contextlib.suppress(psutil.NoSuchProcess):  # of a look that ends just now
            shell.kill()
    wait_until(lambda: not supervisors(laptop))
    laptop.inv("up", "deploy", overrides=(WEBHOOK,))  # arms another
    wait_until(lambda: supervisors(laptop))

    secrets = laptop.client("secretsmanager")
    address = secrets.get_secret_value(SecretId=SECRET)["SecretString"]
    secrets.put_secret_value(SecretId=SECRET, SecretString="http://127.0.0.1:1/dead")
    laptop.inv("up", overrides=(WEBHOOK, "box.idle_minutes=0.05"))
    wait_until(lambda: box(laptop)["State"]["Name"] == "stopped")
    assert mailed(laptop, "idle: no run and no command for") == 1, "the mail has come, and a dead webhook has kept no box on"
    wait_until(lambda: mailed(laptop, f"({box(laptop)['InstanceId']}) is stopped since ") == 1)
    secrets.put_secret_value(SecretId=SECRET, SecretString=address)
    laptop.inv("up", overrides=(WEBHOOK,))
    wait_until(lambda: posted(laptop)[before:] == ["done", "idle"])  # within the hour
    assert mailed(laptop, "is done") == 1 and mailed(laptop, "idle: no run") == 1


def test_who_stops_the_box_himself_is_not_told_and_a_box_that_is_stopped_from_outside_is(laptop):
    count = mailed(laptop, "is stopped since")
    laptop.inv("up", "down", overrides=(WEBHOOK,))
    assert mailed(laptop, "is stopped since") == count
    laptop.inv("up", overrides=(WEBHOOK,))
    laptop.client("ec2").stop_instances(InstanceIds=[box(laptop)["InstanceId"]])
    wait_until(lambda: mailed(laptop, "is stopped since") == count + 1)


def test_a_spot_box_that_aws_takes_back_tells_so_and_so_does_aws(laptop):
    name = ("box.name=spot", "box.spot=true", WEBHOOK)
    laptop.inv("up", overrides=name)
    world.fault(laptop.state, "spot-notice", seconds=1200)
    wait_until(lambda: "spot" in posted(laptop) and mailed(laptop, "AWS takes this spot box back at") == 1)
    assert mailed(laptop, "is taken back by AWS within two minutes") == 1
    assert posted(laptop).count("spot") == 1


def test_the_address_stands_nowhere(laptop):
    """In no journal, no log, no command, no file of a box: only the world itself knows what it has put into the secret."""
    address = json.loads((laptop.state / "state.json").read_text())["webhook"]
    token = address.rpartition("/")[2].encode()
    files = [path for path in laptop.state.rglob("*") if path.is_file() and path.name != "state.json"]
    assert len(files) > 50 and [path for path in files if token in path.read_bytes()] == []
