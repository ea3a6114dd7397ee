"""The instance metadata service of every box (IMDSv2): who it is, where, its role's credentials, and whether its spot time is up.

Each box has one at an address of its own, a port of 127.0.0.1 without a path, which AWS_EC2_METADATA_SERVICE_ENDPOINT names: on EC2
169.254.169.254 is another service for each instance, and aws-sdk-go v1 keeps nothing of that variable but host and port.
"""

import json
import secrets
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from werkzeug.serving import BaseWSGIServer

from twin.aws import wire
from twin.aws.ec2 import instances
from twin.aws.request_log import Journal

CREDENTIAL_LIFE = 6 * 3600  # seconds
LONGEST_TOKEN = 21_600  # seconds: IMDSv2's own limit
TOKEN, TTL = "HTTP_X_AWS_EC2_METADATA_TOKEN", "HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS"
ROLE = "meta-data/iam/security-credentials"
IDENTITY = "meta-data/identity-credentials/ec2"  # the instance's own, which no role stands behind; for AWS's own use, as documented


class Metadata:
    def __init__(self, region: str, now: Callable[[], float], journal: Journal, serve: Callable[[Callable], BaseWSGIServer]):
        self.region, self.now, self.journal, self.serve = region, now, journal, serve
        self.lock = threading.Lock()
        self.servers: dict[str, BaseWSGIServer] = {}  # by instance
        self.tokens: dict[str, tuple[str, float]] = {}  # token to instance and end
        self.credentials: dict[tuple[str, str], dict] = {}  # instance and role to what it was last given
        self.callers: dict[str, str] = {}  # access key id to instance
        self.roleless: set[str] = set()  # access key ids that no role stands behind
        self.notices: dict[str, dict] = {}  # instance to its spot interruption

    def address(self, instance: str) -> str:
        """Where the box finds its own service, from the first time that somebody asks until it is closed."""
        with self.lock:
            if instance not in self.servers:
                self.servers[instance] = self.serve(lambda environ, start: self.answer(instance, environ)(environ, start))
            return f"http://127.0.0.1:{self.servers[instance].port}"

    def close(self, instance: str) -> None:
        with self.lock:
            server = self.servers.pop(instance, None)
        if server:
            threading.Thread(target=lambda: (server.shutdown(), server.server_close()), daemon=True).start()

    def answer(self, instance: str, environ: dict) -> wire.Response:
        """The rules of IMDSv2: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-returns.html"""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/").strip("/")
        if "HTTP_X_FORWARDED_FOR" in environ or self.option(instance, "http_endpoint", "enabled") != "enabled":
            response = text("", 403)
        elif method == "PUT" and path == "latest/api/token":
            response = self.token(instance, environ.get(TTL, ""))
        elif method != "GET":
            response = text("", 405)
        elif not self.token_is_valid(instance, environ.get(TOKEN)):
            response = text("", 401)
        else:
            response = self.get(instance, path)
        self.journal.record("imds", method, environ, response.status_code, b"", instance)
        return response

    def token(self, instance: str, seconds: str) -> wire.Response:
        """A token, for a time that the caller chooses."""
        if not seconds.isdigit() or not 1 <= int(seconds) <= LONGEST_TOKEN:
            return text("", 400)
        token = secrets.token_urlsafe(40)
        self.tokens[token] = (instance, self.now() + int(seconds))
        return text(token, headers={"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": seconds})

    def token_is_valid(self, instance: str, token: str | None) -> bool:
        if token is None:
            return self.option(instance, "http_tokens", "optional") != "required"
        owner, end = self.tokens.get(token, ("", 0.0))
        return owner == instance and self.now() < end

    def option(self, instance: str, name: str, usual: str) -> str:
        return getattr(instances.find(self.region, instance).metadata_options, name, None) or usual

    def get(self, instance: str, path: str) -> wire.Response:
        """What is at this path: a text, or the names of what is below it."""
        if not path:
            return text("latest")
        known = self.about(instance)
        path = path.removeprefix("latest").strip("/")
        if path in known:
            value = known[path]
            return text(value() if callable(value) else value)
        below = children(path, known)
        return text("\n".join(below)) if below else text("", 404)

    def about(self, instance: str) -> dict[str, str | Callable[[], str]]:
        """Everything by path; credentials are made when they are asked for."""
        record = instances.find(self.region, instance)
        name = f"{record.id}.ec2.internal"
        place = {
            "availability-zone": record.availability_zone,
            "availability-zone-id": instances.zone_id(self.region, record.availability_zone),
            "region": self.region,
        }
        own = {
            "ami-id": record.image_id,
            "ami-launch-index": "0",
            "hostname": name,
            "instance-action": "none",
            "instance-id": record.id,
            "instance-life-cycle": record.lifecycle or "on-demand",
            "instance-type": record.instance_type,
            "local-hostname": name,
            "local-ipv4": "127.0.0.1",
            "services/domain": "amazonaws.com",
            "services/partition": "aws",
        }
        own |= {f"placement/{key}": value for key, value in place.items()}
        paths = {f"meta-data/{key}": value for key, value in own.items()}
        paths["dynamic/instance-identity/document"] = json.dumps(self.identity(record))
        if script := instances.user_data(self.region, instance):
            paths["user-data"] = script.decode(errors="replace")
        if notice := self.notices.get(instance):
            paths["meta-data/spot/instance-action"] = json.dumps(notice)
            paths["meta-data/spot/termination-time"] = notice["time"]
        return paths | self.secret(instance)

    def secret(self, instance: str) -> dict[str, str | Callable[[], str]]:
        """The credentials by path: those of the role, where there is one, and the instance's own, which may do nothing."""
        account = {"Code": "Success", "LastUpdated": stamp(self.now()), "AccountId": wire.ACCOUNT}
        itself = f"arn:aws:sts::{wire.ACCOUNT}:assumed-role/aws:ec2-instance"
        paths = {
            f"{IDENTITY}/info": json.dumps(account),
            f"{IDENTITY}/security-credentials/ec2-instance": lambda: json.dumps(self.credentials_of(instance, itself)),
        }
        if role := instances.role(self.region, instance):
            about = {
                "Code": "Success",
                "LastUpdated": stamp(self.now()),
                "InstanceProfileArn": instances.profile(self.region, instance).arn,
            }
            paths["meta-data/iam/info"] = json.dumps(about)
            paths[f"{ROLE}/{role.name}"] = lambda: json.dumps(self.credentials_of(instance, role.arn))
        return paths

    def identity(self, record) -> dict:
        """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/retrieve-iid.html"""
        none = dict.fromkeys(("billingProducts", "devpayProductCodes", "marketplaceProductCodes", "kernelId", "ramdiskId"))
        place = {"availabilityZone": record.availability_zone, "region": self.region, "accountId": wire.ACCOUNT, "privateIp": "127.0.0.1"}
        kind = {"instanceId": record.id, "instanceType": record.instance_type, "imageId": record.image_id, "architecture": "x86_64"}
        return none | place | kind | {"pendingTime": f"{record.launch_time:%Y-%m-%dT%H:%M:%SZ}", "version": "2017-09-30"}

    def credentials_of(self, instance: str, role: str) -> dict:
        """Credentials; new ones while the last still have an hour, as the real service does."""
        with self.lock:
            credentials = self.credentials.get((instance, role))
            if not credentials or credentials["until"] < self.now() + 3600:
                credentials = self.credentials[instance, role] = self.new_credentials(instance, role)
        return {name: value for name, value in credentials.items() if name != "until"}

    def new_credentials(self, instance: str, role: str) -> dict:
        from moto.sts.models import sts_backends

        session = sts_backends[wire.ACCOUNT]["aws"].assume_role(self.region, instance, role, None, CREDENTIAL_LIFE, None)
        until = self.now() + CREDENTIAL_LIFE
        self.callers[session.access_key_id] = instance
        if role.endswith("aws:ec2-instance"):
            self.roleless.add(session.access_key_id)
        keys = {"AccessKeyId": session.access_key_id, "SecretAccessKey": session.secret_access_key, "Token": session.session_token}
        about = {"Code": "Success", "LastUpdated": stamp(self.now()), "Type": "AWS-HMAC", "Expiration": stamp(until), "until": until}
        return about | keys


def children(path: str, known: Iterable[str]) -> list[str]:
    """The names right below a path, as the service lists them: with a stroke where there is more below."""
    start = f"{path}/" if path else ""
    names = {(name, bool(more)) for one in known if one.startswith(start) for name, _, more in [one.removeprefix(start).partition("/")]}
    return sorted(f"{name}/" if more else name for name, more in names)


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text(content: str, status: int = 200, headers: dict | None = None) -> wire.Response:
    return wire.Response(content, status, headers=headers, content_type="text/plain")
