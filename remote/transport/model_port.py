"""A model that answers on the box, on a port of this machine: over SSH, as long as somebody is there."""

import threading
import urllib.request
from contextlib import suppress
from ipaddress import ip_address

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote import local_port
from remote.aws.session import Aws
from remote.transport import ssh_shell

UNASKED = 300  # seconds after which the model ends that nobody asks
ASKED_EVERY = 60  # seconds: while somebody is there it does not end, though he reads
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def forward(aws: Aws, run: schema.Run, instance_id: str, run_id: str, address: str, port: int, local: int, attend: str) -> None:
    """Let the model on the box answer on a port of 127.0.0.1 here, until Ctrl-C; then it ends by itself."""
    check_address(address)
    with (
        ssh_shell.connected(aws, run, instance_id, attend) as connection,
        connection.forward_local(local, port, remote_host=address, local_host=local_port.HOST),
    ):
        place = f"http://{local_port.HOST}:{local}"
        screen.note(f"{place}/v1 answers as `tuned` and `base`, without a key, on the box")
        screen.note(f"{place}/ is a page to try them on; Ctrl-C ends both")
        try:
            while not _wait():
                with suppress(OSError):  # it says so itself to who asks
                    DIRECT.open(f"{place}/v1/models", timeout=ASKED_EVERY).close()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{run_id} is no longer served") from None


def check_address(address: str) -> None:
    """A Problem where it is no address of a container: the box reaches more than that, such as its metadata service."""
    try:
        place = ip_address(address)
        if place.version == 4 and place.is_private and not place.is_link_local:
            return
    except ValueError:
        pass
    what = f"docker on the box says that the model answers at {address or 'no address'}, which is no container's"
    raise Problem(what, "`inv down` and `inv up` restart docker", "crashed")


def _wait() -> bool:
    """A while, or until Ctrl-C."""
    return threading.Event().wait(ASKED_EVERY)
