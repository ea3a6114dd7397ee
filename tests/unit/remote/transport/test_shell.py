"""A way in for a person, through a real sshd: open no longer than the shell, and the box stays on meanwhile."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import terminal

from conf import load
from conf.problem import Problem
from conf.text.quoting import quoted
from remote.aws import instance
from remote.plan import shell_verbs
from remote.transport import shell, ssh, ssh_ingress, ssh_shell

ROOT = Path(__file__).parents[4]
TYPED = """
import sys
from conf import load
from remote.aws.session import Aws
from remote.plan import shell_verbs, verbs
from remote.plan.perform import perform
run = load.load(["cloud=twin", "box.name=visited", *sys.argv[2:]], local=__import__("pathlib").Path("none"))
plan = shell_verbs.shell(run, sys.argv[1] or None)
perform(plan, Aws(run.cloud), verbs.transport(run))
"""


@pytest.fixture(scope="module")
def run():
    return load.load(["cloud=twin", "box.name=visited"], local=Path("none"))


@pytest.fixture(scope="module")
def box(aws, run):
    made = instance.ensure(aws, run.box).instance_id
    instance.wait(aws, made)
    return made


def state() -> Path:
    return Path(os.environ["FABRIC_SSH_CONFIG_PATH"]).parent


def open_to(aws, box) -> dict[str, str]:
    return ssh_ingress._networks(aws, instance.ssh_endpoint(aws, box).group)


def typed(command: str, *overrides: str) -> list[str]:
    return [sys.executable, "-c", TYPED, command, f"cloud.state={quoted(state())}", *overrides]


@pytest.mark.system
@pytest.mark.usefixtures("sshd")
def test_one_command_has_its_output_and_its_exit_code_and_the_port_is_closed_again(aws, box):
    done = subprocess.run(typed("echo out; echo err >&2; exit 3"), cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "out\n") and "err\n" in done.stderr
    piped = subprocess.run(typed("bash"), cwd=ROOT, input="echo $((1 + 1)); exit 4", capture_output=True, text=True)
    assert (piped.returncode, piped.stdout) == (4, "2\n")
    assert open_to(aws, box) == {}


@pytest.mark.system
@pytest.mark.usefixtures("sshd")
def test_a_shell_answers_what_is_typed(aws, box):
    words = iter([b"echo $((6 * 7))\n", b"exit 5\n"])

    def answer(written: str) -> bytes:
        return next(words, b"") if written.rstrip().endswith(("$", "#")) else b""

    code, written = terminal.run(typed(""), 100, ROOT, dict(os.environ) | {"TERM": "xterm", "PS1": "$ "}, answer)
    assert code == 5 and re.search(r"[\r\n]42\r", written), written
    assert open_to(aws, box) == {}


def listening(port: int) -> bool:
    """Whether somebody listens there, without asking: a connection would be forwarded."""
    return any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in psutil.net_connections("tcp"))


@pytest.mark.system
@pytest.mark.usefixtures("sshd")
def test_a_port_of_the_box_answers_here_and_the_box_stays_on(aws, box, run, monkeypatch):
    far = socket.create_server(("127.0.0.1", 0))  # a box of this grade has no network of its own
    with socket.create_server(("127.0.0.1", 0)) as free:
        near = free.getsockname()[1]
    noted, seen = threading.Event(), []
    monkeypatch.setattr(shell.screen, "note", lambda text: noted.set())

    def visit():
        noted.wait()
        deadline = time.monotonic() + 60
        while not listening(near):  # Fabric binds it in a thread of its own
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", near), timeout=60) as connection:
            other, _ = far.accept()
            connection.sendall(b"hello")
            seen.append(other.recv(5))
            other.close()
        seen.append(open_to(aws, box))
        lease = state() / "boxes" / box / "root/run/fine-tune-slm/lease"
        while not lease.exists() or int(lease.read_text()) < time.monotonic() + 60:
            time.sleep(0.1)
        seen.append("lease")

    def wait():
        visitor.join()
        raise KeyboardInterrupt

    visitor = threading.Thread(target=visit)
    visitor.start()
    monkeypatch.setattr(shell, "_wait", wait)
    with pytest.raises(KeyboardInterrupt, match="is no longer here"):
        shell.forward(aws, run, box, far.getsockname()[1], near, shell_verbs.attend(run))
    far.close()
    assert seen == [b"hello", {"127.0.0.1/32": "fine-tune-slm:box=visited"}, "lease"]
    assert open_to(aws, box) == {}


@pytest.mark.system
@pytest.mark.usefixtures("sshd")
def test_who_comes_while_another_shell_ends_and_closes_the_port_is_let_in_all_the_same(aws, box, run, monkeypatch):
    ends, push = [lambda: ssh_ingress.close_port(aws, box, run.box.name)], ssh.Ssh._push

    def push_while_the_other_ends(self, user, key):
        push(self, user, key)
        if ends:
            ends.pop()()

    monkeypatch.setattr(ssh.Ssh, "_push", push_while_the_other_ends)
    monkeypatch.setattr(ssh, "PATIENCE", 10)
    with ssh_shell.connected(aws, run, box, shell_verbs.attend(run)) as connection:
        assert connection.run("exit 6", warn=True, hide=True, in_stream=False).exited == 6 and not ends
    assert open_to(aws, box) == {}


def test_a_local_port_that_is_taken_is_refused_before_anything_is_opened(aws, run):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Problem, match="cannot be used") as refused:
        shell.forward(aws, run, "i-0", 6006, taken.getsockname()[1], "")
    assert "`inv forward 6006 --local " in refused.value.hint


def test_a_port_that_no_box_has_is_refused_with_one_that_it_has(aws, run):
    """`inv forward 99999 --local 8000` was the advice, and fails as well."""
    with pytest.raises(Problem, match="there is no port 99999") as refused:
        shell.forward(aws, run, "i-0", 99999, 8000, "")
    assert refused.value.hint == "`inv forward 6006`"
