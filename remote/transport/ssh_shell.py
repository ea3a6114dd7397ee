"""A way in over SSH, by a key that lives for a minute; port 22 of the security group is open meanwhile, to this machine's address."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from conf import schema
from remote import local_port
from remote.aws.session import Aws
from remote.transport import ssh, ssh_ingress, terminal
from remote.transport.session_manager import EVERY

LOGIN = 'exec "${SHELL:-/bin/bash}" -l'


def shell(aws: Aws, run: schema.Run, instance_id: str, command: str | None, attend: str) -> int:
    """The exit code of a shell, or of a command."""
    with connected(aws, run, instance_id, attend) as connection:
        return connection.run(command or LOGIN, pty=command is None or terminal.is_there(), warn=True, hide=False).exited


@contextmanager
def forwarded(aws: Aws, run: schema.Run, instance_id: str, port: int, local: int, attend: str) -> Iterator[None]:
    """A port of the box is one of 127.0.0.1 here."""
    with (
        connected(aws, run, instance_id, attend) as connection,
        connection.forward_local(local, port, remote_host="127.0.0.1", local_host=local_port.HOST),
    ):
        yield


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
