"""The box reboots, or a child of a script is killed for memory, in the middle of a verb: the verb gets through, or says what is true."""

import fcntl
import time
from pathlib import Path

import psutil
import pytest
import stand_in_trainer

from twin.box import processes

pytestmark = pytest.mark.slow
SETTINGS = ("train.steps=4", "train.save_steps=2")
AGAIN = "was cut off: its box rebooted, or its agent failed, before it had ended; it is sent again"


@pytest.fixture(scope="module")
def box(laptop):
    stand_in_trainer.register(laptop.state, step_seconds=0.05)
    laptop.inv("up", "deploy")
    return laptop


def instance(box) -> str:
    return box.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"]


def waiting(root: Path) -> list[psutil.Process]:
    """The children by which scripts of the box wait for each other."""
    return [one for one in processes.called(root, "--timeout") if "flock" in " ".join(processes.words(one))]


def meets(box, verb: str, action, ok: bool = True):
    """What is said by a verb one of whose scripts is caught in the middle, where it waits for the script before it."""
    root = box.state / "boxes" / instance(box) / "root"
    lock = root / "run/fine-tune-slm/step.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        going = box.popen(verb, overrides=SETTINGS)
        while not waiting(root):
            assert going.poll() is None, going.communicate()
            time.sleep(0.05)
        action(root)
        while waiting(root):
            time.sleep(0.05)
    printed, _ = going.communicate(timeout=900)
    assert (going.returncode == 0) == ok, printed
    assert "Traceback" not in printed
    return printed


@pytest.fixture
def reboot(box):
    return lambda root: box.client("ec2").reboot_instances(InstanceIds=[instance(box)])


@pytest.mark.parametrize("verb", ["up", "deploy"])
def test_a_reboot_in_the_middle_of_a_verb_is_told_and_it_gets_through(box, reboot, verb):
    assert AGAIN in meets(box, verb, reboot)


def test_a_reboot_in_the_middle_of_train_is_told_and_the_next_command_goes_on(box, reboot):
    """The volume is not mounted after it, and train does not mount it."""
    printed = meets(box, "train", reboot, ok=False)
    assert AGAIN in printed and "the volume is not mounted on the box" in printed and "`inv deploy -- cloud=twin " in printed
    assert "is done" in box.inv("deploy", "train", overrides=SETTINGS).stdout


def test_a_child_that_is_killed_for_memory_is_told_as_that(box):
    def kill(root: Path) -> None:
        for process in waiting(root):
            process.kill()

    printed = meets(box, "deploy", kill, ok=False)
    assert "volume.sh was killed (exit code 137), most likely because the box's memory was full" in printed
    assert "took longer" not in printed
    box.inv("deploy")
