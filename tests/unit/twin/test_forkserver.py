"""A program that is loaded once and forked for each call behaves for its caller like the program itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from twin import world

WARM = Path(__file__).parents[3] / "twin/forkserver.py"
PROGRAM = """
import os, sys, time
sys.path.insert(0, {folder!r})
import forkserver
from pathlib import Path

def main(words):
    if words[0] == "tell":
        print(words[1:], os.getcwd(), os.environ["MINE"], os.nice(0), "LOADED" in os.environ)
        print(sys.stdin.read(), file=sys.stderr)
    if words[0] == "exit":
        sys.exit(int(words[1]))
    if words[0] == "fail":
        raise ValueError("told to fail")
    if words[0] == "wait":
        Path(words[1]).write_text(str(os.getpid()))
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            sys.exit(130)

forkserver.serve(Path({place!r}), main)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a loaded program takes calls; the path is longer than a socket's address may be."""
    folder = tmp_path_factory.mktemp("a" * 120)
    program = PROGRAM.format(folder=str(WARM.parent), place=str(folder / "calls"))
    server = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"LOADED": "yes"})
    while not (folder / "calls").exists():
        time.sleep(0.01)
    yield folder / "calls"
    server.kill()
    server.wait()


def words(place, *more: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(WARM), str(place), *more]


def waiting(place, tmp_path) -> tuple[subprocess.Popen, int]:
    """A call that goes on, and its real process."""
    call = subprocess.Popen(words(place, "wait", str(tmp_path / "pid")))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    return call, int((tmp_path / "pid").read_text())


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 900
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not psutil.pid_exists(pid)


def test_it_has_the_callers_arguments_folder_environment_niceness_and_files(place, tmp_path):
    environment = {"MINE": "x = \u00fc", "PATH": os.environ["PATH"]}
    command = ["nice", "-n", "7", *words(place, "tell", "a b", "--c")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, input="typed", text=True, capture_output=True, encoding="utf-8")
    assert done.stdout == f"['a b', '--c'] {tmp_path} x = \u00fc {min(os.nice(0) + 7, 19)} False\n" and done.stderr == "typed\n"


def test_it_ends_with_the_programs_own_exit_code(place):
    assert [subprocess.run(words(place, "exit", str(code))).returncode for code in (0, 3, 255)] == [0, 3, 255]
    failed = subprocess.run(words(place, "fail"), capture_output=True, text=True)
    assert failed.returncode == 1 and "ValueError: told to fail" in failed.stderr


def test_a_signal_to_the_caller_reaches_it(place, tmp_path):
    call, pid = waiting(place, tmp_path)
    call.send_signal(signal.SIGINT)
    assert call.wait(10) == 130 and ended(pid)


def test_it_dies_with_its_caller_and_the_caller_with_it(place, tmp_path):
    call, pid = waiting(place, tmp_path)
    call.kill()
    assert ended(pid)
    (tmp_path / "pid").unlink()
    call, pid = waiting(place, tmp_path)
    os.kill(pid, signal.SIGKILL)
    assert call.wait(10) == -signal.SIGKILL


def test_a_box_calls_the_aws_cli_this_way_and_without_it_where_nobody_serves(box):
    asked = "aws sts get-caller-identity --query Account --output text"
    assert box.run(asked)["StandardOutputContent"] == "123456789012\n"
    moved = box.run(f'mv "$BOX_ROOT/run/aws" "$BOX_ROOT/run/away"; {asked}; mv "$BOX_ROOT/run/away" "$BOX_ROOT/run/aws"')
    assert moved["StandardOutputContent"] == "123456789012\n", moved


def test_a_box_loads_an_aws_cli_of_its_own_where_none_is_kept_for_it(tmp_path, account, another, until, monkeypatch):
    monkeypatch.delenv("TWIN_AWS")
    state = tmp_path / "a world"
    world.start(state, {}, account)
    try:
        box = another(state).box()
        until((box.root / "run/aws").is_socket)
        assert not (box.root / "run/aws").is_symlink()
        assert box.run("aws sts get-caller-identity --query Account --output text")["StandardOutputContent"] == "123456789012\n"
    finally:
        world.stop(state)
