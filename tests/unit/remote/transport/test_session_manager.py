"""A way in through Session Manager, with a stand-in for its plugin (tests/support): no port is opened, and the box stays on."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import session_manager_plugin
import terminal
from botocore.exceptions import ClientError

from conf import load
from conf.finding import OK
from conf.text.quoting import quoted
from remote.account import permissions
from remote.aws import instance
from remote.doctor import shell as doctor
from remote.plan import shell_verbs
from remote.transport import agent, session_manager
from twin import world

ROOT = Path(__file__).parents[4]
TYPED = """
import sys
from conf import load
from remote.aws.session import Aws
from remote.plan import shell_verbs, verbs
from remote.plan.perform import perform
run = load.load(["cloud=twin", "box.name=visited", *sys.argv[3:]], local=__import__("pathlib").Path("none"))
plan = shell_verbs.shell(run, sys.argv[2] or None) if sys.argv[1] == "shell" else shell_verbs.forward(run, *map(int, sys.argv[2].split()))
perform(plan, Aws(run.cloud), verbs.transport(run))
"""
THROUGH, BY_SSH = "through Session Manager: no port is open", "by SSH, port 22 open to your address meanwhile"


@pytest.fixture(scope="module")
def run():
    return load.load(["cloud=twin", "box.name=visited"], local=Path("none"))


@pytest.fixture(scope="module")
def box(aws, run):
    return launched(aws, run)


def launched(aws, run) -> str:
    """A box whose agent has both of its channels."""
    made = instance.ensure(aws, run.box).instance_id
    instance.wait(aws, made)
    agent.wait(aws, made, True)
    until(lambda: connected(aws, made))
    return made


def connected(aws, made: str) -> bool:
    ssm = aws.client("ssm")
    try:
        ssm.terminate_session(SessionId=ssm.start_session(Target=made)["SessionId"])
    except ssm.exceptions.TargetNotConnected:
        return False
    return True


def until(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{session_manager_plugin.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    session_manager._version.cache_clear()


@pytest.fixture
def no_plugin(monkeypatch):
    """Whatever this machine has."""
    folders = [one for one in os.environ["PATH"].split(":") if not (Path(one) / session_manager.PROGRAM).exists()]
    monkeypatch.setenv("PATH", ":".join(folders))


def state() -> Path:
    return Path(os.environ["FABRIC_SSH_CONFIG_PATH"]).parent


def typed(verb: str, what: str, *overrides: str) -> list[str]:
    return [sys.executable, "-c", TYPED, verb, what, f"cloud.state={quoted(state())}", *overrides]


def on_terminal(verb: str, what: str, answer=None, *overrides: str) -> tuple[int, str]:
    return terminal.run(typed(verb, what, *overrides), 100, ROOT, dict(os.environ) | {"TERM": "xterm"}, answer)


def asked_for(operation: str) -> list[dict]:
    lines = [json.loads(line) for line in (state() / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["operation"] == operation]


def active(aws) -> list[str]:
    return [one["SessionId"] for one in aws.client("ssm").describe_sessions(State="Active")["Sessions"]]


@pytest.mark.slow
@pytest.mark.usefixtures("box", "plugin")
def test_one_command_has_its_output_its_exit_code_and_a_terminal_and_no_port_is_opened(aws):
    opened = len(asked_for("AuthorizeSecurityGroupIngress"))
    sized = "until [ \"$(stty size)\" != '0 0' ]; do sleep 0.1; done"  # the plugin tells it when it has begun
    code, written = on_terminal("shell", f"echo out; {sized}; stty size; exit 3")
    assert code == 3 and re.search(rf"{THROUGH}\r\nout\r+\n50 100\r+\n$", written), written
    assert len(asked_for("AuthorizeSecurityGroupIngress")) == opened and not active(aws)


@pytest.mark.slow
@pytest.mark.usefixtures("box", "plugin")
def test_a_shell_answers_what_is_typed_and_its_session_is_over_afterwards(aws):
    words = iter([b"echo $((6 * 7))\r", b"exit 5\r"])

    def answer(written: str) -> bytes:
        return next(words, b"") if written.rstrip().endswith(("$", "#")) else b""

    code, written = on_terminal("shell", "", answer)
    assert code == 0 and re.search(r"[\r\n]42\r", written) and THROUGH in written, written
    assert "Exiting session with sessionId" in written and not active(aws)


@pytest.mark.slow
@pytest.mark.usefixtures("box", "plugin")
def test_ctrl_c_is_for_the_far_end():
    keys = iter([b"\x03"])

    def answer(written: str) -> bytes:
        return next(keys, b"") if "waiting" in written else b""

    code, written = on_terminal("shell", "trap 'echo caught; exit 4' INT; echo waiting; while :; do sleep 0.1; done", answer)
    assert code == 4 and "caught" in written, written
    keys = iter([b"\x03"])
    code, written = on_terminal("shell", "echo waiting; sleep 4711", answer)
    assert code == 130 and "error" not in written, written


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_two_shells_at_once_and_the_box_counts_as_used(aws, box):
    lease = state() / "boxes" / box / "root/run/fine-tune-slm/lease"
    lease.unlink(missing_ok=True)
    results: list[tuple[int, str]] = []
    first = threading.Thread(target=lambda: results.append(on_terminal("shell", "sleep 3; echo first")), daemon=True)
    first.start()
    code, written = on_terminal("shell", "echo second")
    assert code == 0 and "second" in written
    first.join(300)
    assert results and results[0][0] == 0 and "first" in results[0][1]
    until(lease.exists)
    assert not active(aws)


@pytest.mark.slow
@pytest.mark.usefixtures("box", "plugin")
def test_a_port_of_the_box_answers_here_until_ctrl_c(aws):
    with socket.create_server(("127.0.0.1", 0)) as far, socket.create_server(("127.0.0.1", 0)) as free:
        port, near = far.getsockname()[1], free.getsockname()[1]
        free.close()
        opened = len(asked_for("AuthorizeSecurityGroupIngress"))
        process = subprocess.Popen(
            typed("forward", f"{port} {near}"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        while f"http://127.0.0.1:{near} is port {port} of the box" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        for word in (b"one", b"two"):
            with socket.create_connection(("127.0.0.1", near), timeout=120) as connection:
                other, _ = far.accept()
                with other:
                    connection.sendall(word)
                    assert other.recv(3) == word
                    other.sendall(word[::-1])
                    assert connection.recv(3) == word[::-1]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert THROUGH in said and len(asked_for("AuthorizeSecurityGroupIngress")) == opened and not active(aws)


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_the_policies_of_who_trains_let_him_in_and_what_lets_in_stands_in_no_argument(aws, box, run):
    policies = permissions.roles(aws.cloud, world.ACCOUNT, world.CALLER)
    world.enforce(state(), [policies["laptop"], policies["files"]])
    attend = shell_verbs.attend(run)
    try:
        for document, parameters in (("", {}), (session_manager.COMMAND, {"command": "ls"}), (session_manager.PORT, {"portNumber": "80"})):
            with session_manager.session(aws, box, attend, document, **parameters) as session:
                token = json.loads(session.environment[session_manager.RESPONSE])["TokenValue"]
                assert token not in " ".join(session.words)
        refused = pytest.raises(session_manager.Unavailable, match="your policy lacks")
        with refused, session_manager.session(aws, box, attend, "SSM-SessionManagerRunShell"):
            pass
    finally:
        world.enforce(state(), None)
    assert not active(aws)


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_shell_ends_where_its_box_goes_off(aws, monkeypatch):
    short = load.load(["cloud=twin", "box.name=short"], local=Path("none"))
    made = launched(aws, short)
    monkeypatch.setattr(session_manager, "EVERY", 1)
    with session_manager.session(aws, made, shell_verbs.attend(short)) as session:
        aws.client("ec2").stop_instances(InstanceIds=[made])
        until(lambda: any(session.id in line["request"] for line in asked_for("TerminateSession")))


@pytest.mark.parametrize(
    ("version", "reason"),
    [("1.2.497.0", "takes a session's token as an argument"), ("oops", "does not say its version"), ("1.2.498", ""), ("1.3.0.0", "")],
)
def test_a_plugin_that_would_show_the_token_to_everybody_is_not_used(version, reason, monkeypatch, tmp_path):
    program = tmp_path / session_manager.PROGRAM
    program.write_text(f"#!/bin/sh\necho '{version}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    session_manager._version.cache_clear()
    said, (finding,) = session_manager.why_not(), doctor.way_in(None)
    assert reason in said if reason else said == ""
    assert finding.verdict == OK and ("goes by SSH, because" if reason else "goes through Session Manager") in finding.what


@pytest.mark.slow
@pytest.mark.usefixtures("no_plugin")
def test_without_the_plugin_nothing_is_asked_of_session_manager(aws, run):
    with pytest.raises(session_manager.Unavailable, match="is not installed"), session_manager.session(aws, "i-0", ""):
        pass
    assert not [one for one in asked_for("StartSession") if 'i-0"' in (one["request"] or "")]


@pytest.mark.system
@pytest.mark.usefixtures("sshd", "box", "plugin")
def test_what_is_piped_and_what_asks_for_ssh_goes_by_ssh_and_says_why():
    piped = subprocess.run(typed("shell", "bash"), cwd=ROOT, input="echo $((1 + 1)); exit 4", capture_output=True, text=True)
    assert (piped.returncode, piped.stdout) == (4, "2\n") and f"{BY_SSH}: Session Manager wants a terminal" in piped.stderr
    code, written = on_terminal("shell", "exit 6", None, "box.ssh=true")
    assert code == 6 and f"{BY_SSH}: `box.ssh=true` says so" in written


@pytest.mark.slow
def test_an_error_of_another_kind_is_no_reason_to_open_a_port(aws, plugin):
    with pytest.raises(ClientError, match="InvalidDocument"), session_manager.session(aws, "i-0", "", "AWS-NoSuchDocument"):
        pass
