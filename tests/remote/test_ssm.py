"""Run Command's other half: nothing is sent twice, and nothing outlives whoever has sent it."""

import signal
import threading
import time
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from remote import box, ssm
from remote.ssm import Ssm
from twin import world

BASH = "#!/bin/bash\n"


@pytest.fixture(scope="module")
def state(aws):
    return Path(aws.cloud.state)


@pytest.fixture(scope="module")
def mine(aws):
    """The id of a box whose agent takes commands."""
    instance = box.ensure(aws, load.load(["cloud=twin", "box.name=told"], local=Path("none")).box)["instance_id"]
    box.wait(aws, instance)
    box.wait_for_agent(aws, instance)
    return instance


@pytest.fixture(autouse=True)
def healed(state):
    yield
    world.heal(state)
    world.fault(state, "lag", seconds=0.3)


def sent(aws, mine, title: str) -> list[dict]:
    return [one for one in aws.client("ssm").list_commands(InstanceId=mine)["Commands"] if one["Comment"].startswith(title)]


def test_a_lost_answer_and_a_late_list_are_one_command(aws, mine, state):
    """The command has begun long before the service shows it."""
    world.fault(state, "lag", seconds=4)
    world.fault(state, "answer-lost")
    assert Ssm(aws, mine).run(BASH + 'echo x >>"$BOX_ROOT/root/once"; wc -l <"$BOX_ROOT/root/once"', 60, "late").stdout.strip() == "1"
    assert len(sent(aws, mine, "late")) == 1


def test_what_was_refused_is_not_looked_for(aws, mine, state):
    world.fault(state, "throttle", only="ssm.SendCommand", count=2)
    begun = time.monotonic()
    assert Ssm(aws, mine).run(BASH + "echo done", 60, "throttled").stdout == "done\n"
    assert time.monotonic() - begun < ssm.LAG


def test_ctrl_c_withdraws_a_command_that_no_agent_has_taken(aws, mine, state):
    world.fault(state, "agent-dies", instance=mine)
    threading.Timer(3, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt, match="ending had not begun on the box, and is withdrawn"):
        Ssm(aws, mine).run(BASH + 'touch "$BOX_ROOT/root/too-late"', 60, "ending")
    assert [one["Status"] for one in sent(aws, mine, "ending")] == ["Cancelled"]
    world.ask(state, "start_agent", instance=mine)
    assert Ssm(aws, mine).run(BASH + 'ls "$BOX_ROOT/root"', 60).stdout.count("too-late") == 0


def test_ctrl_c_leaves_a_command_that_has_begun_to_its_end(aws, mine, state):
    threading.Timer(3, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as stop:
        Ssm(aws, mine).run(BASH + 'sleep 5; touch "$BOX_ROOT/root/whole"', 60, "working")
    assert not str(stop.value)
    deadline = time.monotonic() + 60
    while sent(aws, mine, "working")[0]["Status"] == "InProgress" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert sent(aws, mine, "working")[0]["Status"] == "Success"


def test_whoever_gives_up_withdraws_it(aws, mine, state, monkeypatch):
    """The agent has taken the command and answers nothing more: it would begin it anew after a boot."""
    monkeypatch.setattr(Ssm, "_collect", given_up)
    with pytest.raises(Problem, match="has not answered"):
        Ssm(aws, mine).run(BASH + "sleep 20", 60, "lost")
    assert sent(aws, mine, "lost")[0]["Status"] in ("Cancelling", "Cancelled")


def given_up(self, command_id: str, timeout: int):
    time.sleep(2)
    raise Problem(f"command {command_id} has not answered", "wait", reason="unreachable")


def test_what_a_dead_laptop_has_left_in_the_queue_does_not_begin_at_the_next_start(aws, mine, state):
    """Last in this file: the box is stopped and started."""
    world.fault(state, "agent-dies", instance=mine)
    left = Ssm(aws, mine)._send(BASH + 'touch "$BOX_ROOT/root/left"', 60, "left")
    box.stop(aws, mine)
    run = load.load(["cloud=twin", "box.name=told"], local=Path("none"))
    assert box.ensure(aws, run.box)["changed"] == "started"
    box.wait(aws, mine)
    box.wait_for_agent(aws, mine)
    assert "left" not in Ssm(aws, mine).run(BASH + 'ls "$BOX_ROOT/root"', 60).stdout
    assert aws.client("ssm").get_command_invocation(CommandId=left, InstanceId=mine)["Status"] == "Cancelled"
