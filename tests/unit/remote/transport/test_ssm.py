"""Run Command's other half: nothing is sent twice, and no command outlives its sender."""

import signal
import threading
import time
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from remote.aws import instance
from remote.plan import perform
from remote.plan.answers import Volume
from remote.plan.plan import Step
from remote.plan.script import SCRIPTS, compose
from remote.transport import agent, ssm
from remote.transport.ssm import Ssm
from remote.transport.transport import pack
from twin import world
from twin.box import processes

BASH = "#!/bin/bash\n"


@pytest.fixture(scope="module")
def state(aws):
    return Path(aws.cloud.state)


@pytest.fixture(scope="module")
def mine(aws):
    """The id of a box whose agent takes commands."""
    instance_id = instance.ensure(aws, load.load(["cloud=twin", "box.name=told"], local=Path("none")).box).instance_id
    instance.wait(aws, instance_id)
    agent.wait(aws, instance_id)
    return instance_id


@pytest.fixture(autouse=True)
def healed(state):
    yield
    world.clear_faults(state)
    world.fault(state, "lag", seconds=0.3)


def sent(aws, mine, title: str) -> list[dict]:
    return [one for one in aws.client("ssm").list_commands(InstanceId=mine)["Commands"] if one["Comment"].startswith(title)]


@pytest.mark.slow  # it waits
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


@pytest.mark.slow  # it waits
def test_ctrl_c_leaves_a_command_that_has_begun_to_its_end(aws, mine, state):
    threading.Timer(3, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as stop:
        Ssm(aws, mine).run(BASH + 'sleep 5; touch "$BOX_ROOT/root/whole"', 60, "working")
    assert not str(stop.value)
    deadline = time.monotonic() + 900
    while sent(aws, mine, "working")[0]["Status"] == "InProgress" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert sent(aws, mine, "working")[0]["Status"] == "Success"


def test_a_sender_that_gives_up_cancels_its_command(aws, mine, state, monkeypatch):
    """The agent has taken the command and answers nothing more."""
    monkeypatch.setattr(Ssm, "_collect", given_up)
    with pytest.raises(Problem, match="has not answered"):
        Ssm(aws, mine).run(BASH + "sleep 20", 60, "lost")
    assert sent(aws, mine, "lost")[0]["Status"] in ("Cancelling", "Cancelled")


def given_up(self, command_id: str, timeout: int):
    time.sleep(2)
    raise Problem(f"command {command_id} has not answered", "wait", reason="unreachable")


COUNTED = 'echo run | tee -a "$BOX_ROOT/root/%s"; [ "$(wc -l <"$BOX_ROOT/root/%s")" -gt %d ] || sleep 60.8'


def struck(state, mine, name: str, runs: int, action) -> threading.Thread:
    """A deed that is done in the middle of a script, each of its first `runs` times."""

    def strike() -> None:
        path = state / f"boxes/{mine}/root/root/{name}"
        for number in range(1, runs + 1):
            while not path.exists() or len(path.read_text().splitlines()) < number:
                time.sleep(0.05)
            action()

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    return thread


def kill_workers(root: Path) -> None:
    for process in processes.called(root, "--document"):
        process.kill()


def test_a_script_that_a_reboot_cut_off_is_sent_again(aws, mine, state, capsys):
    struck(state, mine, "rebooted", 1, lambda: aws.client("ec2").reboot_instances(InstanceIds=[mine]))
    done = Ssm(aws, mine).run(BASH + COUNTED % ("rebooted", "rebooted", 1), 120, "reboot")
    assert (done.code, done.stdout) == (0, "run\n")
    assert (state / f"boxes/{mine}/root/root/rebooted").read_text() == "run\nrun\n"
    assert "reboot was cut off: its box rebooted, or its agent failed, before it had ended; it is sent again" in capsys.readouterr().err
    assert len(sent(aws, mine, "reboot")) == 2


def test_a_script_whose_agent_failed_is_sent_again_once_and_then_told(aws, mine, state):
    struck(state, mine, "failing", 2, lambda: kill_workers(state / f"boxes/{mine}/root"))
    with pytest.raises(Problem, match="failing was cut off twice"):
        Ssm(aws, mine).run(BASH + COUNTED % ("failing", "failing", 9), 120, "failing")
    assert len(sent(aws, mine, "failing")) == 2


def test_a_script_of_which_no_agent_says_how_it_ended_is_sent_again(aws, mine, state, capsys):
    """A reboot that takes longer than both timeouts: the service calls that a timeout, and the script took no second."""

    def away() -> None:
        world.fault(state, "agent-dies", instance=mine)
        kill_workers(state / f"boxes/{mine}/root")
        world.forward(state, 125)
        time.sleep(1)
        world.ask(state, "start_agent", instance=mine)

    struck(state, mine, "unanswered", 1, away)
    done = Ssm(aws, mine).run(BASH + COUNTED % ("unanswered", "unanswered", 1), 60, "unanswered")
    assert (done.code, done.stdout) == (0, "run\n") and "it is sent again" in capsys.readouterr().err
    assert {one["StatusDetails"] for one in sent(aws, mine, "unanswered")} == {"Success", "Execution Timed Out"}


def test_what_fails_by_itself_is_not_sent_again(aws, mine):
    done = Ssm(aws, mine).run(BASH + "exit 1", 60, "silent")
    assert done.code == 1 and len(sent(aws, mine, "silent")) == 1


def test_a_script_that_was_killed_is_not_told_as_one_that_took_too_long(aws, mine):
    """The agent says TimedOut of both: here the kernel ends a child for want of memory."""
    done = Ssm(aws, mine).run(BASH + "set -e; echo '@@ seen=yes'; bash -c 'kill -KILL $$'; echo '@@ seen=no'", 60, "memory")
    assert (done.code, done.facts) == (137, {"seen": "yes"})
    with pytest.raises(Problem, match="volume.sh was killed \\(exit code 137\\), most likely because the box's memory was full"):
        perform._run(Step("volume", Volume, {}, "i-1"), perform.Outcome(), Answering(done))


class Answering:
    """A box that answers what another has answered."""

    def __init__(self, result):
        self.result = result

    def run(self, script: str, timeout: int, title: str = ""):
        return self.result


@pytest.mark.slow  # it waits
def test_a_script_that_took_too_long_is_told_so(aws, mine):
    with pytest.raises(Problem, match="a script took longer than its 5 s"):
        Ssm(aws, mine).run(BASH + "sleep 60.9", 5, "long")


@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPTS.glob("*.sh") if path.stem != "lib"))
def test_no_script_on_its_way_has_what_the_agent_would_put_a_parameter_in_the_place_of(script):
    """It reads `{{ssm:NAME}}` in the text of a script, and a setting may hold anything."""
    assert "{{" not in pack(compose(script, {"NAME": "{{ssm:/secret}} {{ commands }}"}))


def test_what_a_dead_laptop_has_left_in_the_queue_does_not_begin_at_the_next_start(aws, mine, state):
    """Last in this file: the box is stopped and started."""
    world.fault(state, "agent-dies", instance=mine)
    left = Ssm(aws, mine)._send(BASH + 'touch "$BOX_ROOT/root/left"', 60, "left")
    while left not in {command["CommandId"] for command in aws.client("ssm").list_commands(InstanceId=mine)["Commands"]}:
        time.sleep(0.2)  # the list is late, but not as late as a box of EC2's is off
    instance.stop(aws, mine)
    run = load.load(["cloud=twin", "box.name=told"], local=Path("none"))
    assert instance.ensure(aws, run.box).changed == "started"
    instance.wait(aws, mine)
    agent.wait(aws, mine)
    assert "left" not in Ssm(aws, mine).run(BASH + 'ls "$BOX_ROOT/root"', 60).stdout
    assert aws.client("ssm").get_command_invocation(CommandId=left, InstanceId=mine)["Status"] == "Cancelled"


def test_a_box_that_goes_off_ends_the_wait_for_its_command(aws, state, monkeypatch):
    """AWS calls the command in progress until its time is over, and nobody would answer."""
    monkeypatch.setattr(ssm, "STATE_EVERY", 0.5)
    box = load.load(["cloud=twin", "box.name=going"], local=Path("none")).box
    leaving = instance.ensure(aws, box).instance_id
    instance.wait(aws, leaving)
    agent.wait(aws, leaving)
    sent_off = threading.Timer(2, lambda: world.client(state, "ec2").stop_instances(InstanceIds=[leaving], Force=True))
    sent_off.start()
    with pytest.raises(Problem, match="the box is stopped: it went off before command") as caught:
        Ssm(aws, leaving).run(BASH + "sleep 3000", 3600, "leaves")
    assert "`inv up`" in caught.value.hint
