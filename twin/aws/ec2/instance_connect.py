"""How one comes to a box without its agent: EC2 Instance Connect keys, and host keys that the console shows.

The box's sshd reads them where that of a real box does; who may connect at all is in `twin/box/ssh.py`.
"""

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from twin.aws import wire
from twin.aws.ec2 import instances
from twin.aws.ec2.metadata import stamp
from twin.clock import Clock

KEY_LIFE = 60  # seconds that a pushed key is accepted
KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256")
CONSOLE = """[    0.000000] Linux version 6.8.0-aws (emulated) on {instance}
cloud-init: Cloud-init v. 24.1 running 'modules:final' at {moment}
"""
# cloud-init's keys_to_console does so once an instance: the console of a later start has no keys.
FIRST_BOOT = """-----BEGIN SSH HOST KEY FINGERPRINTS-----
256 {fingerprint} root@{instance} (ED25519)
-----END SSH HOST KEY FINGERPRINTS-----
-----BEGIN SSH HOST KEY KEYS-----
{key} root@{instance}
-----END SSH HOST KEY KEYS-----
"""


class Access:
    def __init__(self, boxes, region: str, clock: Clock):
        self.boxes, self.region, self.clock = boxes, region, clock
        self.keys: dict[Path, list[str]] = {}  # where they stand to those that are accepted now
        self.operations: dict[str, wire.Handler] = {
            "ec2-instance-connect.SendSSHPublicKey": self.push,
            "ec2.GetConsoleOutput": self.console,
        }

    def push(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """The key is accepted for a minute: it stands in /run/ec2-instance-connect/<user> so long."""
        parameters = request.parameters
        instance = instances.find(self.region, parameters["InstanceId"])
        if not instance or parameters.get("AvailabilityZone") not in (None, instance.availability_zone):
            raise wire.Refusal("EC2InstanceNotFoundException", "No instances found with the specified parameters")
        if instance._state.name != "running":
            raise wire.Refusal("EC2InstanceStateInvalidException", f"The instance {instance.id} is not running.")
        key = parameters["SSHPublicKey"].strip()
        if key.split(" ")[0] not in KINDS:
            raise wire.Refusal("InvalidArgsException", "The public key is not a valid OpenSSH public key.")
        path = self.boxes.root(instance.id) / "run/ec2-instance-connect" / parameters["InstanceOSUser"]
        self.keys.setdefault(path, []).append(key)
        self.write(path)
        self.clock.at(self.clock.now() + KEY_LIFE, lambda: self.forget(path, key))
        return wire.answer({"RequestId": "twin", "Success": True})

    def forget(self, path: Path, key: str) -> None:
        self.keys[path].remove(key)
        self.write(path)

    def write(self, path: Path) -> None:
        """The file holds the keys of this moment; it is read by one user, and written by this process alone."""
        path.unlink(missing_ok=True)
        if self.keys[path]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{key}\n" for key in self.keys[path]), encoding="utf-8")

    def console(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        instance = request.parameters["InstanceId"]
        if not instances.find(self.region, instance):
            return forward(request)  # moto says that it does not exist
        key = host_key(self.boxes.root(instance))
        digest = base64.b64encode(hashlib.sha256(base64.b64decode(key.split(" ")[1])).digest()).decode().rstrip("=")
        text = CONSOLE + (FIRST_BOOT if self.boxes.boots(instance) == 1 else "")
        text = text.format(instance=instance, moment=stamp(self.clock.now()), fingerprint=f"SHA256:{digest}", key=key)
        text = "" if self.clock.now() < self.boxes.console_from else text
        output = base64.b64encode(text.encode()).decode()
        about = f"<instanceId>{instance}</instanceId><timestamp>{stamp(self.clock.now())}</timestamp>"
        return wire.xml("GetConsoleOutput", f"{about}<output>{output}</output>")


def host_key(root: Path) -> str:
    """The box's public host key, made at its first use as sshd's own is at the first boot."""
    path = root / "etc/ssh/ssh_host_ed25519_key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        form = serialization.PrivateFormat.OpenSSH
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        path.with_suffix(".pub").write_bytes(public + b"\n")
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()
