"""The transport over SSH, for a box whose agent does not answer: the same bytes as Run Command, through `sudo -n bash`.

Fabric carries them. How a box is reached (a jump host, another port or user) may be said in an SSH configuration file that
FABRIC_SSH_CONFIG_PATH names; the user's own ~/.ssh/config is meant for other machines, and is not read.
"""

import base64
import hashlib
import io
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import instance
from remote.aws.session import Aws
from remote.transport import ssh_ingress
from remote.transport.transport import Result, pack

PATIENCE = 120  # seconds until the box must have taken a connection: it may still boot
ATTEMPTS = 3  # at one script; only a connection that was lost is a reason for another
MOST = 1 << 20  # bytes of stdout, and of stderr: Run Command keeps a fortieth of it
GRACE = 30  # seconds beyond a script's own limit until the box counts as lost


@dataclass(frozen=True)
class Execution:
    """What became of a script: `code` is -1 where a signal ended it, None where the connection went away before its end."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float


class Ssh:
    """Runs scripts on one instance; each connection has a key of its own, which is in memory only and lives for a minute."""

    def __init__(self, aws: Aws, instance_id: str, user: str):
        self.aws = aws
        self.instance_id = instance_id
        self.user = user

    def run(self, script: str, timeout: int, title: str = "") -> Result:
        """The script may run again where a connection was lost: on the box one waits for the other, and finds its work done."""
        text = pack(script).encode()
        for attempt in range(ATTEMPTS):
            if attempt:
                words = "the connection to the box was lost; trying again. Where the script runs on, the new one waits for it"
                screen.note(words)
            connection = self.connect()
            try:
                ended = execute(connection, text, timeout)
            finally:
                connection.close()
            if ended.code is not None:
                return self._finished(ended, ended.code, timeout, connection.user)
            if ended.seconds > timeout:
                break
        raise Problem(
            f"the connection to {self.instance_id} was lost while a script ran ({title or 'no title'}); it may go on there",
            "`inv status` shows the box; then run the same command again: every step may run twice",
            reason="unreachable",
        )

    def _finished(self, ended: Execution, code: int, timeout: int, user: str) -> Result:
        # `timeout --signal=KILL` dies of its own signal; where a shell is above it that is code 137.
        if code in (-1, 137) and ended.seconds >= timeout:
            raise Problem(
                f"a script took longer than its {timeout} s", "`inv status`, then run the same command again", reason="unreachable"
            )
        if code and "sudo:" in ended.stderr and not ended.stdout:
            complaint = next(line for line in ended.stderr.splitlines() if "sudo:" in line)
            raise Problem(
                f"user `{user}` of {self.instance_id} may not use sudo without a password ({complaint.strip()})",
                "name the image's own user: `box.user=...`; or take another image: `box.ami=...`",
                reason="refused",
            )
        return Result(code, ended.stdout, ended.stderr)

    def connect(self, open_port: Callable[[], object] = lambda: None):
        """A connection to the box that has proved itself. While nothing listens there it is tried again: the box may still boot, and
        somebody else who leaves it may have closed the port, which is opened before each attempt."""
        from paramiko import AuthenticationException, BadHostKeyException, SSHException

        deadline = time.monotonic() + PATIENCE
        while True:
            open_port()
            connection = self._prepare()
            try:
                connection.open()
                return connection
            except BadHostKeyException as error:
                raise ssh_ingress.host_key_changed(
                    self.instance_id, f"it has the host key {_fingerprint(error.key)}, not the one of its console"
                ) from error
            except AuthenticationException as error:
                raise self._refused(connection.user) from error
            except (SSHException, OSError, EOFError) as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise self._unreachable(connection, error) from error
            time.sleep(1)

    def _prepare(self):
        """A connection that knows the box's host key, and has a new key which the box takes for a minute."""
        from paramiko import PKey, RejectPolicy

        endpoint = instance.ssh_endpoint(self.aws, self.instance_id)
        if not endpoint.address or not endpoint.host_key:
            lacks = "public address" if not endpoint.address else "known host key"
            hint = "`inv up -- box.ssh=true`; a box without a public address cannot be reached by SSH: choose another `box.subnet`"
            raise Problem(f"{self.instance_id} has no {lacks}", hint, reason="unreachable")
        own = _new_key()
        connection = make_connection(endpoint.address, self.user, own)
        if self.aws.cloud.loopback and connection.host != "127.0.0.1":
            raise Problem(f"cloud={self.aws.cloud.name} would connect to {connection.host}", "set FABRIC_SSH_CONFIG_PATH as the rest of it")
        kind, _, body = endpoint.host_key.partition(" ")
        name = connection.host if connection.port == ssh_ingress.PORT else f"[{connection.host}]:{connection.port}"
        connection.client.set_missing_host_key_policy(RejectPolicy())  # Fabric's own takes any
        connection.client.get_host_keys().add(name, kind, PKey.from_type_string(kind, base64.b64decode(body)))
        self._push(connection.user, f"{own.get_name()} {own.get_base64()}")
        return connection

    def _push(self, user: str, key: str) -> None:
        """The box takes the key from this user for 60 seconds; then EC2 Instance Connect has forgotten it."""
        connect = self.aws.client("ec2-instance-connect")
        try:
            connect.send_ssh_public_key(InstanceId=self.instance_id, InstanceOSUser=user, SSHPublicKey=key)
        except connect.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in (*ssh_ingress.DENIED, "AuthException"):
                raise
            what = f"you may not send a key to {self.instance_id} ({code})"
            raise Problem(what, "your administrator must allow ec2-instance-connect:SendSSHPublicKey", reason="refused") from error

    def _refused(self, user: str) -> Problem:
        return Problem(
            f"{self.instance_id} did not accept the key that EC2 Instance Connect has just sent for user `{user}`",
            "name the image's own user: `box.user=...`; an image without EC2 Instance Connect cannot be reached so: `box.ami=...`",
            reason="refused",
        )

    def _unreachable(self, connection, error: Exception) -> Problem:
        return Problem(
            f"{self.instance_id} takes no connection at {connection.host}:{connection.port} ({error or type(error).__name__})",
            "`inv up -- box.ssh=true` opens the port to your address of now; `inv status` shows whether the box runs",
            reason="unreachable",
        )


def make_connection(address: str, user: str, key):
    """A connection of Fabric's, not yet open, to this address or to what stands for it in FABRIC_SSH_CONFIG_PATH."""
    from fabric import Config, Connection
    from paramiko import SSHConfig

    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks would stand beside our sentence
    path = os.environ.get("FABRIC_SSH_CONFIG_PATH")
    ssh_config = SSHConfig.from_path(path) if path else SSHConfig()
    config = Config(lazy=True, ssh_config=ssh_config, overrides={"user": user})
    only = {"pkey": key, "allow_agent": False, "look_for_keys": False, "banner_timeout": 20, "auth_timeout": 20}
    return Connection(address, config=config, connect_timeout=10, connect_kwargs=only)


def execute(connection, text: bytes, timeout: int) -> Execution:
    """Run a bash text as root, with all of it on bash's standard input; SIGKILL to all of it after `timeout` seconds."""
    from paramiko import SSHException

    started, out, err = time.monotonic(), bytearray(), bytearray()
    code = None
    try:
        channel = connection.create_session()
        channel.settimeout(GRACE)
        connection.transport.set_keepalive(10)
        channel.exec_command(f"sudo -n timeout --signal=KILL {timeout} bash")
        _send(channel, text)
        while not _drain(channel, out, err):
            if time.monotonic() - started > timeout + GRACE:
                break
        # The far end has closed the channel in order, or the connection is gone, or it has been silent for too long.
        if channel.closed and connection.transport.is_active():
            code = channel.exit_status
    except (SSHException, OSError, EOFError):
        code = None
    stdout, stderr = (bytes(part).decode(errors="replace") for part in (out, err))
    return Execution(code, stdout, stderr, time.monotonic() - started)


def _send(channel, text: bytes) -> None:
    try:
        channel.sendall(text)
        channel.shutdown_write()
    except OSError:
        return  # it reads no more: what it said instead is still to be read


def _drain(channel, out: bytearray, err: bytearray) -> bool:
    """Whether the channel is closed and nothing is left in it; what is there is taken out, the first or the last of it kept."""
    closed = channel.closed  # first: what comes before the end is in the buffers then
    quiet = True
    if channel.recv_ready():
        out += channel.recv(1 << 16)
        del out[MOST:]
        quiet = False
    if channel.recv_stderr_ready():
        err += channel.recv_stderr(1 << 16)
        del err[:-MOST]
        quiet = False
    if quiet and not closed:
        time.sleep(0.02)
    return quiet and closed


def _new_key():
    """A key that nobody has seen; it is never written anywhere."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from paramiko import Ed25519Key

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    return Ed25519Key.from_private_key(io.StringIO(Ed25519PrivateKey.generate().private_bytes(*form).decode()))


def _fingerprint(key) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
