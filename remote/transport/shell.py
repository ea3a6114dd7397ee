"""A way in for a person: a shell on the box, one command, or a port of it on this machine; through Session Manager where its plugin is
there, else over SSH. The box does not stop for idleness meanwhile.
"""

import signal
import subprocess
import sys
import threading

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote import local_port
from remote.aws.session import Aws
from remote.transport import session_manager, ssh_shell, terminal
from remote.transport.marked_command import MarkedCommand

HELD = session_manager.HELD
THROUGH = "through Session Manager: no port is open"
BY_SSH = "by SSH, port 22 open to your address meanwhile: {why}"
PATIENCE = 10  # seconds for the plugin to end its session


def shell(aws: Aws, run: schema.Run, instance_id: str, command: str | None, attend: str) -> None:
    """Open a shell on the box, or run one command there and exit with its code. `attend` is the script that keeps the box on."""
    with screen.paused():
        try:
            _check_way(run)
            if not terminal.is_there():
                raise session_manager.Unavailable("Session Manager wants a terminal, and here is none")
            code = _shell(aws, instance_id, attend) if command is None else _command(aws, instance_id, command, attend)
        except session_manager.Unavailable as reason:
            screen.note(BY_SSH.format(why=reason))
            code = ssh_shell.shell(aws, run, instance_id, command, attend)
    if code:
        sys.exit(code)


def forward(aws: Aws, run: schema.Run, instance_id: str, port: int, local: int, attend: str) -> None:
    """Make a port of the box one of 127.0.0.1 here, until Ctrl-C."""
    local_port.check_number(port, "inv forward 6006")
    local_port.check(local, f"inv forward {port} --local")
    try:
        try:
            _check_way(run)
            _forward(aws, instance_id, port, local, attend)
        except session_manager.Unavailable as reason:
            screen.note(BY_SSH.format(why=reason))
            with ssh_shell.forwarded(aws, run, instance_id, port, local, attend):
                _say_where(port, local)
                _wait()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"port {port} of the box is no longer here") from None


def _check_way(run: schema.Run) -> None:
    if run.box.ssh:
        raise session_manager.Unavailable("`box.ssh=true` says so")


def _shell(aws: Aws, instance_id: str, attend: str) -> int:
    """Session Manager's client does not tell how the shell ended."""
    with session_manager.session(aws, instance_id, attend) as session:
        screen.note(THROUGH)
        return terminal.lend(session.words, session.environment)


def _command(aws: Aws, instance_id: str, command: str, attend: str) -> int:
    marked = MarkedCommand(command)
    with session_manager.session(aws, instance_id, attend, session_manager.COMMAND, command=marked.text) as session:
        screen.note(THROUGH)
        terminal.lend_filtered(session.words, session.environment, marked.show)
    if marked.code is None:
        what = f"the command's end was not heard ({marked.complaint})"
        raise Problem(what, "`inv status` shows the box; what went on there may go on", reason="unreachable")
    return marked.code


def _forward(aws: Aws, instance_id: str, port: int, local: int, attend: str) -> None:
    numbers = {"portNumber": str(port), "localPortNumber": str(local)}
    with session_manager.session(aws, instance_id, attend, session_manager.PORT, **numbers) as session:
        screen.note(THROUGH)
        # Ctrl-C is for us alone: its end is to be waited for.
        plugin = subprocess.Popen(
            session.words, env=session.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            last = _told(plugin, port, local)
        finally:
            _end(plugin)
    raise Problem(
        f"{session_manager.PROGRAM} has ended ({last})", "`inv status` shows the box; then run the same command again", reason="unreachable"
    )


def _told(plugin: subprocess.Popen, port: int, local: int) -> str:
    """The last that the plugin said before it ended by itself; where the port is, as soon as it says that it listens there."""
    last = "it said nothing"
    for line in plugin.stdout or ():
        text = line.decode(errors="replace").strip()
        last = text or last
        if " opened for sessionId " in text:
            _say_where(port, local)
        elif text.startswith("Connection to destination port failed"):
            screen.note(f"nothing listens on port {port} of the box")
    return last


def _end(plugin: subprocess.Popen) -> None:
    plugin.send_signal(signal.SIGINT)  # at which it ends its session, and not at others
    try:
        plugin.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        plugin.kill()
        plugin.wait()


def _say_where(port: int, local: int) -> None:
    screen.note(f"http://{local_port.HOST}:{local} is port {port} of the box, until Ctrl-C")


def _wait() -> None:
    """Until Ctrl-C."""
    threading.Event().wait()
