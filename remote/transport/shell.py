"""A way in for a person: a shell on the box, one command, or a port of it on this machine; over SSH, by a key that lives for a minute.

The port of the security group is open meanwhile, to this machine's address, and the box does not stop for idleness.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from conf import schema
from conf.process.screen import screen
from remote import local_port
from remote.aws.session import Aws
from remote.transport import ssh, ssh_ingress

LOGIN = 'exec "${SHELL:-/bin/bash}" -l'
HELD, EVERY = 180, 60  # seconds for which the box counts as used, and between two such words


def shell(aws: Aws, run: schema.Run, instance_id: str, command: str | None, attend: str) -> None:
    """Open a shell on the box, or run one command there and exit with its code. `attend` is the script that keeps the box on."""
    with screen.paused(), connected(aws, run, instance_id, attend) as connection:
        terminal = command is None or (sys.stdin.isatty() and sys.stdout.isatty())
        ended = connection.run(command or LOGIN, pty=terminal, warn=True, hide=False)
    if ended.exited:
        sys.exit(ended.exited)


def forward(aws: Aws, run: schema.Run, instance_id: str, port: int, local: int, attend: str) -> None:
    """Make a port of the box one of 127.0.0.1 here, until Ctrl-C."""
    local_port.check(local, f"inv forward {port} --local")
    with (
        connected(aws, run, instance_id, attend) as connection,
        connection.forward_local(local, port, remote_host="127.0.0.1", local_host=local_port.HOST),
    ):
        screen.note(f"http://{local_port.HOST}:{local} is port {port} of the box, until Ctrl-C")
        try:
            _wait()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"port {port} of the box is no longer here") from None


def _wait() -> None:
    """Until Ctrl-C."""
    threading.Event().wait()


@contextmanager
def connected(aws: Aws, run: schema.Run, instance_id: str, attend: str) -> Iterator:
    """A connection to the box, for which the port is open no longer than it, unless `box.ssh` wants it open.

    Another shell on the same box closes the port when it ends: a connection that is there stays, and one that is only tried opens it again.
    """
    try:
        ssh_ingress.pin_host_key(aws, instance_id, seconds=0 if run.box.ssh else 30)
        connection = ssh.Ssh(aws, instance_id, run.box.user).connect(
            lambda: ssh_ingress.open_port(aws, instance_id, run.box.name, run.box.ssh_from)
        )
        with connection, _attended(connection, attend.encode()):
            yield connection
    finally:
        if not run.box.ssh:
            ssh_ingress.close_port(aws, instance_id, run.box.name)


@contextmanager
def _attended(connection, script: bytes) -> Iterator[None]:
    """The box is not idle while a person is on it, and for at most `HELD` seconds longer."""
    left = threading.Event()

    def attend() -> None:
        while ssh.execute(connection, script, 30).code == 0 and not left.wait(EVERY):
            pass

    thread = threading.Thread(target=attend, name="attend", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(30)
