"""A command's own output and exit code, out of all that a client of Session Manager writes."""

import subprocess

import pytest

from remote.transport.marked_command import MarkedCommand

BANNER, FAREWELL = b"\nStarting session with SessionId: me-0123\n", b"\n\nExiting session with sessionId: me-0123.\n\n"


def ran(command: str) -> tuple[MarkedCommand, bytes]:
    marked = MarkedCommand(command)
    return marked, BANNER + subprocess.run(["sh", "-c", marked.text], capture_output=True, check=False).stdout + FAREWELL


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_only_the_output_is_shown_and_the_code_is_the_commands(size):
    marked, written = ran("printf 'a \\036 in it\\n'; docker() { echo \"$2\"; }; docker ps --format='{{.Names}}'; echo 'ü'; exit 7")
    shown = b"".join(marked.show(written[at : at + size]) for at in range(0, len(written), size))
    assert shown == "a \x1e in it\n--format={{.Names}}\nü\n".encode() and marked.code == 7


def test_what_is_written_is_shown_at_once():
    marked, written = ran("printf 'password: '")
    head, _, _ = written.partition(b"password: ")
    assert marked.show(head + b"password: ") == b"password: " and marked.code is None


def test_no_text_of_the_command_is_for_the_agent_or_a_shell_to_act_on():
    text = MarkedCommand("echo '{{ssm:/secret}}' \"$(date)\"").text
    assert "{{" not in text and "date" not in text


def test_a_command_whose_end_was_not_heard_has_no_code_and_the_clients_last_words():
    marked = MarkedCommand("ls")
    assert marked.show(BANNER + b"\n\nSessionId: me-0123 : the box went off\n\n") == b""
    assert marked.code is None and marked.complaint == "SessionId: me-0123 : the box went off"
