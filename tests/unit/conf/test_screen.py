"""What a person sees while verbs work, on a terminal and elsewhere; the verbs here do nothing but report."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pictures
import pytest
import terminal

from conf.process.screen import coloured

ROOT = Path(__file__).parents[3]
VERBS = """
import os, sys, time
from invoke import Collection, task
from conf import cli
from conf.problem import Problem
from conf.process import screen as place
from conf.process.screen import screen

place.PLAIN_EVERY = 0.3
place.duration = lambda seconds: "0 s"  # however busy the machine is

@task
def up(c):
    with screen.verb("up"):
        screen.note("  price    about $0.02")
        screen.step("  find the box [bold]")
        time.sleep(0.5)
        screen.result("i-1 is up (a \\x1b[31mbox)", "`inv train`")

@task
def train(c):
    with screen.verb("train"):
        screen.note("  price    about $0.02")
        for step in range(5):
            screen.status(f"running: step {step}/4 " + "and so on " * 12, step, 4, [f"loss {step}", "[bold] " * 40])
            time.sleep(0.2)
        print("a library complains", file=sys.stderr)
        screen.result("the-run is done", "`inv publish`")

@task
def ask(c):
    with screen.verb("ask"):
        time.sleep(0.3)
        with screen.paused():
            answer = input("shall it be? ")
        screen.result(f"it shall: {answer}")

@task
def wait(c):
    with screen.verb("wait"):
        screen.status(f"for process {os.getpid()}")
        time.sleep(60)

@task
def fail(c):
    with screen.verb("fail"):
        screen.status("trying")
        time.sleep(0.3)
        raise Problem("no room on the disk", "`inv down`, then " + "a long way " * 20 + "`inv up`")

@task
def look(c):
    screen.print("box  running")

ns = cli.user_errors(Collection(up, train, ask, wait, fail, look), lambda error: None)
"""
LINES = ["  price    about $0.02", r"up         i-1 is up (a \x1b[31mbox)  0 s", "a library complains", "train      the-run is done  0 s"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tasks.py").write_text(VERBS)
    (tmp_path / "invoke.yaml").write_text((ROOT / "invoke.yaml").read_text())
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    ours = {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | more
    return {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")} | ours


def command(*verbs: str) -> list[str]:
    return [sys.executable, "-m", "invoke", *verbs]


def on_terminal(folder, *verbs: str, columns: int = 100, typed=None, **more: str) -> tuple[int, str]:
    return terminal.run(command(*verbs), columns, folder, environment(**more), typed)


def test_on_a_terminal_each_verb_has_a_line_and_nothing_is_left_of_what_moved(folder):
    code, written = on_terminal(folder, "up", "train")
    assert code == 0
    seen = terminal.seen(written, 100)
    assert seen[:5] == [*LINES, "next       `inv publish`"] and not any(seen[5:])
    assert "find the box [bold]" in written and "━" in written, "the live line was there, with its bar"
    assert "             loss 4" in written, "and what stands below it"
    assert "\x1b[32m" in written or "\x1b[1;32m" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is shown again"


def test_the_picture_of_the_live_view_is_what_stood_there_in_the_last_step_whole(folder):
    _, written = on_terminal(folder, "up", "train")
    seen = [line for line in terminal.seen(pictures.while_training(written), 100) if line]
    assert seen[:2] == LINES[:2], "above it what had been done"
    live, loss, rest = seen[-3:]
    assert re.fullmatch(r"train +\S+ running: step \d.*━.* \d+ s", live), seen
    assert re.fullmatch(" {13}loss \\d", loss) and rest.startswith("             [bold]")
    assert "running: step" in pictures.svg(pictures.while_training(written), "a title").replace("&#160;", " ")


def test_the_bar_gives_way_to_words(tmp_path):
    """`0:00 left` was cut to `0:00 le` where all else had room."""
    (tmp_path / "invoke.yaml").write_text((ROOT / "invoke.yaml").read_text())
    text = "running: step 16/16  loss 0.387  215 tokens/s  0:00 left"
    verbs = VERBS.replace("find the box [bold]", text).replace("  price    about $0.02", "a note")
    verbs = verbs.replace(f'screen.step("  {text}")', f'screen.status("{text}", 9, 16)')
    (tmp_path / "tasks.py").write_text(verbs)
    _, written = on_terminal(tmp_path, "up", columns=90)
    assert text in written and "━" in written


@pytest.mark.parametrize("columns", [60, 30])
def test_a_narrow_terminal_has_the_same_lines_and_a_live_line_that_never_wraps(folder, columns):
    code, written = on_terminal(folder, "up", "train", columns=columns)
    assert code == 0 and "running: step" in written
    seen = "".join(terminal.seen(written, columns))
    assert seen.replace(" ", "") == "".join([*LINES, "next       `inv publish`"]).replace(" ", "")


def test_a_pipe_has_the_same_lines_without_a_control_character(folder):
    done = subprocess.run(command("up", "train"), cwd=folder, env=environment(FORCE_COLOR="1"), capture_output=True, text=True, check=True)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)
    assert done.stdout.splitlines() == [LINES[1], LINES[3], "next       `inv publish`"]
    assert [line for line in done.stderr.splitlines() if not line.startswith(("up   ", "train   "))] == [LINES[0], LINES[2]]
    assert "loss 4" not in done.stderr, "what stands below the live line is for a terminal"
    now_and_then = "up         find the box [bold]\n" in done.stderr and "\ntrain      running: step " in done.stderr
    assert now_and_then, "where it stands"


def test_a_terminal_that_can_nothing_is_written_to_as_a_pipe_is(folder):
    _, written = on_terminal(folder, "up", "train", TERM="dumb")
    assert "\x1b" not in written and "\r" not in written.replace("\r\n", "")
    assert set(LINES) < set(written.replace("\r\n", "\n").split("\n"))
    assert "\ntrain      running: step " in written, "where it stands, now and then"


def test_no_color_leaves_the_live_line_and_takes_the_colours(folder):
    _, written = on_terminal(folder, "up", "train", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", written) and "━" in written
    assert terminal.seen(written, 100)[:4] == LINES


def test_what_is_next_is_named_after_the_last_verb_and_never_after_one_that_only_shows(folder):
    def said(*verbs):
        return subprocess.run(command(*verbs), cwd=folder, env=environment(), capture_output=True, text=True).stdout

    assert said("up", "look") == f"{LINES[1]}\nbox  running\n"
    assert said("up", "fail") == f"{LINES[1]}\n"


@pytest.mark.parametrize(("words", "more"), [(["--echo"], {}), ([], {"INVOKE_RUN_ECHO": "1"})])
def test_details_come_with_echo(folder, words, more):
    done = subprocess.run(command(*words, "up"), cwd=folder, env=environment(**more), capture_output=True, text=True, check=True)
    assert "  find the box [bold]\n" in done.stderr


def test_a_question_has_the_terminal_to_itself(folder):
    asked = []

    def typed(written: str) -> bytes:
        return b"yes\n" if "shall it be? " in written and not asked and not asked.append(1) else b""

    code, written = on_terminal(folder, "ask", typed=typed)
    assert code == 0 and terminal.seen(written, 100) == ["shall it be? yes", "ask        it shall: yes  0 s", ""]


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM"])
def test_who_stops_it_gets_a_terminal_with_a_cursor(folder, way):
    stopped = []

    def typed(written: str) -> bytes:
        process = re.search(r"process (\d+)", written)
        if not process or stopped:
            return b""
        stopped.append(way)
        if way == "Ctrl-C":
            return b"\x03"
        os.kill(int(process[1]), signal.SIGTERM)
        return b""

    code, written = on_terminal(folder, "wait", typed=typed)
    assert code == 130 and written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "stopped; what runs on the box goes on. `inv status` shows it" in terminal.seen(written, 100)


def test_an_error_and_its_hint_appear_whole(folder):
    code, written = on_terminal(folder, "fail", columns=60)
    seen = "".join(terminal.seen(written, 60))
    assert code == 1 and "trying" not in seen
    assert seen == "error: no room on the disk" + "hint: `inv down`, then " + "a long way " * 20 + "`inv up`"


@pytest.mark.parametrize(("value", "wanted"), [(None, True), ("", True), ("1", False)])
def test_colours_are_for_terminals_and_not_where_no_color_has_a_value(monkeypatch, tmp_path, value, wanted):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False) if value is None else monkeypatch.setenv("NO_COLOR", value)
    ours, its = pty.openpty()
    with os.fdopen(its, "w", encoding="utf-8") as stream, os.fdopen(ours), (tmp_path / "log").open("w", encoding="utf-8") as file:
        assert coloured(stream) is wanted and not coloured(file)
