"""Failures on a world, and the very commands that they print, run through a shell: each is about the same world, box and run."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import stand_in_trainer
from conftest import HOSTILE, ROOT, Laptop

from twin import world

pytestmark = pytest.mark.slow


def printed(said: str) -> list[str]:
    """The commands that a message names, in their order."""
    return [command[1] for command in re.finditer("`(inv [^`]*)`", said)]


def through_a_shell(command: str, here, surroundings=HOSTILE) -> subprocess.CompletedProcess:
    """The command as it was printed, typed into bash by somebody else: nothing but the text says what it is about."""
    script = f'inv() {{ {shlex.quote(sys.executable)} -m invoke "$@"; }}\n{command}\n'
    environment = os.environ | surroundings | {"HOME": str(here)}
    return subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=600)


@pytest.fixture
def off(tmp_path):
    """A laptop whose world does not run."""
    made = Laptop(tmp_path / "it's mine")
    made.folder.mkdir()
    yield made
    world.stop(made.state)


def test_the_command_that_starts_the_world_starts_this_one_and_its_next_one_is_about_it(off):
    refused = off.inv("up", ok=False)
    started = through_a_shell(printed(refused.stderr)[0], off.folder)
    assert started.returncode == 0, started.stderr
    assert world.status(off.state) is not None, "another world was started"
    (following,) = printed(started.stdout)
    assert following.startswith("inv up -- cloud=twin ")
    done = through_a_shell(following, off.folder)
    assert done.returncode == 0 and "is up" in done.stdout, done.stderr
    assert off.client("ec2").describe_instances()["Reservations"], "another world's box was started"
    assert [shlex.split(each)[:3] for each in printed(done.stdout)] == [["inv", "deploy", "--"]]


def test_a_command_of_a_status_is_about_the_box_that_was_asked_about(laptop):
    said = laptop.inv("status", overrides=("box.name=other",)).stdout
    assert "box other: none" in said
    again = through_a_shell(printed(said)[0].replace("inv up ", "inv status ", 1), laptop.folder)
    assert "box other: none" in again.stdout and str(laptop.state) not in again.stderr
    remembered = laptop.inv("status", overrides=("box.name=other",)).stdout
    assert remembered.count("`inv up -- cloud=twin") == 4, "the last answer is shown as it was, and once more"


def test_a_hint_that_sets_something_itself_keeps_the_rest(laptop):
    refused = laptop.inv("deploy", overrides=("box.name=other", "box.ssh=false"), ok=False)
    (command,) = printed(refused.stderr)
    assert command.startswith("inv up -- cloud=twin ") and "box.name=other" in command
    swept = laptop.inv("plan", overrides=("lora.r=8,16", "box.name=other"), ok=False)
    (command,) = printed(swept.stderr)
    words = shlex.split(command)
    assert words[:3] == ["inv", "sweep", "--"] and words[-1] == "lora.r=8,16" and "box.name=other" in words
    rehearsed = through_a_shell(command.replace("inv sweep", "inv --dry sweep", 1), laptop.folder)
    assert rehearsed.returncode == 0 and "job 2 of 2: lora.r=16" in rehearsed.stdout, rehearsed.stderr


def test_the_next_commands_of_a_report_are_the_words_of_its_run_and_run(laptop):
    """On AWS too, where nothing is touched: the run's own rows, fields and name, and no other task's experiment."""
    stand_in_trainer.register(laptop.state, step_seconds=0)
    for name, count in (("my rows.jsonl", 40), ("held_out.jsonl", 8)):
        rows = [{"prompt": f"Where is {name} {n}?", "completion": json.dumps({"city": f"Oslo {n}"})} for n in range(count)]
        (laptop.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = (f"data.train='{laptop.folder}/my rows.jsonl'", f"data.validation='{laptop.folder}/held_out.jsonl'", "data.fields=[city]")
    laptop.inv("up", "deploy", "train", overrides=own)
    said = laptop.inv("report", "--run", "best").stdout
    (line,) = [line for line in said.splitlines() if line.startswith("next ")]
    (command,) = printed(line)
    assert "cloud=aws" in command and "my rows.jsonl" in command and "data.fields=[city]" in command
    assert "medical_ie" not in command and "cloud.state" not in command and "on your own rows" not in said
    rehearsed = through_a_shell(command.replace("inv up", "inv --dry up", 1), laptop.folder, {})
    assert rehearsed.returncode == 0 and "# publish" in rehearsed.stdout, rehearsed.stderr
