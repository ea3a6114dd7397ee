"""Port 22 of the boxes: a port of 127.0.0.1 for each, behind which a real sshd answers whom the box's security group lets in.

`ssh_config` in the state folder says which port stands for which address: `ssh -F` reads it, and Fabric does.
"""

import ipaddress
import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from twin.aws.ec2 import instances
from twin.box.machine import prerequisites

PORT = 22
PRIVILEGE_SEPARATION = Path("/run/sshd")  # an sshd of root's wants it, and its service makes it
Serve = Callable[[socket.socket], subprocess.Popen]


@dataclass
class SshListener:
    address: str  # that EC2 shows
    user: str
    server: socket.socket
    sessions: list[subprocess.Popen] = field(default_factory=list)


class SshServer:
    def __init__(self, state: Path, region: str):
        self.state, self.region = state, region
        self.listeners: dict[str, SshListener] = {}
        self.lock = threading.RLock()
        self.write()

    def open(self, instance: str, user: str, serve: Serve) -> None:
        """Connections to the instance's public address are served; a box without one cannot be reached."""
        address = instances.find(self.region, instance).public_ip
        if not address:
            return
        with self.lock:
            self.close(instance)
            server = socket.create_server(("127.0.0.1", 0))
            self.listeners[instance] = listener = SshListener(address, user, server)
            self.write()
        threading.Thread(target=self.watch, args=(instance, listener, serve), daemon=True).start()

    def close(self, instance: str) -> None:
        """As when the power goes: every connection just ends."""
        with self.lock:
            if listener := self.listeners.pop(instance, None):
                with suppress(OSError):
                    listener.server.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
                listener.server.close()
                self.write()
        if listener:
            drop_connections(listener)

    def close_all(self) -> None:
        for instance in list(self.listeners):
            self.close(instance)

    def cut(self, instance: str) -> None:
        if instance not in self.listeners:
            raise ValueError(f"{instance} is off, or has no public address")
        drop_connections(self.listeners[instance])

    def watch(self, instance: str, listener: SshListener, serve: Serve) -> None:
        while True:
            try:
                connection, (caller, _) = listener.server.accept()
            except OSError:
                return  # the door is closed
            with connection:
                if prerequisites.program("sshd") and self.is_allowed(instance, caller):
                    listener.sessions = [one for one in listener.sessions if one.poll() is None]
                    listener.sessions.append(serve(connection))

    def is_allowed(self, instance: str, caller: str) -> bool:
        """Whether a rule of the instance's security groups names the caller; AWS drops the packets of others, here they are hung up on."""
        here = ipaddress.ip_address(caller)
        for group in instances.find(self.region, instance).security_groups:
            for rule in group.ingress_rules:
                port = rule.ip_protocol == "-1" or (rule.ip_protocol == "tcp" and rule.from_port <= PORT <= rule.to_port)
                if port and "CidrIp" in rule.ip_range and here in ipaddress.ip_network(rule.ip_range["CidrIp"]):
                    return True
        return False

    def write(self) -> None:
        """`ssh_config`, as it is now."""
        blocks = [
            f"Host {listener.address}\n  HostName 127.0.0.1\n  Port {listener.server.getsockname()[1]}\n  User {listener.user}\n"
            for listener in self.listeners.values()
        ]
        part = path(self.state).with_suffix(".new")
        part.write_text("".join(blocks), encoding="utf-8")
        part.rename(path(self.state))


def path(state: Path) -> Path:
    return state / "ssh_config"


def drop_connections(listener: SshListener) -> None:
    """Every connection is gone; what it had started gets no signal, and notices when it writes."""
    for session in listener.sessions:
        with suppress(psutil.NoSuchProcess):
            tree = [psutil.Process(session.pid), *psutil.Process(session.pid).children(recursive=True)]
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    if process.name() == "sshd":
                        process.kill()
        session.wait()


def sshd(root: Path, environment: dict[str, str]) -> Serve:
    """Serves a connection by this machine's own sshd, with the host key, the keys and the environment of a box that is a folder."""
    config = root.parent / "sshd_config"
    config.write_text(settings(root, environment), encoding="utf-8")

    def serve(connection: socket.socket) -> subprocess.Popen:
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        words = [prerequisites.program("sshd"), "-i", "-f", str(config), "-E", str(root / "var/log/sshd.log")]
        return subprocess.Popen(words, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL, cwd=root, env=environment)

    return serve


def settings(root: Path, environment: dict[str, str]) -> str:
    """Keys alone: those that EC2 Instance Connect pushed for this minute. A session has the environment of the box."""
    environment = environment | {"HOME": f"{root}/root"}
    own = " ".join(f'"{name}={value}"' for name, value in environment.items())
    return f"""\
HostKey "{root}/etc/ssh/ssh_host_ed25519_key"
AuthorizedKeysFile "{root}/run/ec2-instance-connect/%u"
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
PidFile none
PrintMotd no
SetEnv {own}
"""


def current_user() -> str:
    """The user that a box of the process grade runs as: an sshd without root lets nobody else in."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container, say; sshd then lets nobody in
        return str(os.geteuid())
