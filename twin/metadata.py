"""The instance metadata service of every box (IMDSv2): who it is, where, its role's credentials, and whether its spot time is up.

A box reaches it by AWS_EC2_METADATA_SERVICE_ENDPOINT, which names the box, because 169.254.169.254 would be the same for all.
"""

import json
import re
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from twin import instances, wire

PATH = re.compile(r"/imds/(?P<instance>i-[0-9a-f]+)/(?P<rest>.*)")
CREDENTIAL_LIFE = 6 * 3600  # seconds
LONGEST_TOKEN = 21_600  # seconds: IMDSv2's own limit
TOKEN, TTL = "HTTP_X_AWS_EC2_METADATA_TOKEN", "HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS"
CREDENTIALS = "meta-data/iam/security-credentials/"


class Metadata:
    def __init__(self, region: str, now: Callable[[], float]):
        self.region, self.now = region, now
        self.lock = threading.Lock()
        self.tokens: dict[str, tuple[str, float]] = {}  # token to instance and end
        self.credentials: dict[str, dict] = {}  # instance to what it was last given
        self.callers: dict[str, str] = {}  # access key id to instance
        self.notices: dict[str, dict] = {}  # instance to its spot interruption
        self.operations: dict[str, wire.Handler] = {"imds.PUT": self.put, "imds.GET": self.get}

    def endpoint(self, aws: str, instance: str) -> str:
        return f"{aws}/imds/{instance}"

    def put(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """A token, for a time that the caller chooses."""
        instance, rest = self.asked(request)
        seconds = request.environ.get(TTL, "")
        if rest != "latest/api/token":
            return text("", 405)
        if not seconds.isdigit() or not 1 <= int(seconds) <= LONGEST_TOKEN:
            return text("", 400)
        token = secrets.token_urlsafe(40)
        self.tokens[token] = (instance, self.now() + int(seconds))
        return wire.Response(token, content_type="text/plain", headers={"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": seconds})

    def get(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        instance, rest = self.asked(request)
        if not self.may(instance, request.environ.get(TOKEN)):
            return text("", 401)
        path = rest.removeprefix("latest/")
        if path.startswith(CREDENTIALS):
            return self.role(instance, path.removeprefix(CREDENTIALS))
        found = self.about(instance).get(path)
        return text("", 404) if found is None else text(found)

    def asked(self, request: wire.Request) -> tuple[str, str]:
        match = PATH.fullmatch(request.path)
        if not match or not instances.find(self.region, match["instance"]):
            raise wire.Refusal("NotFound", "there is no such instance", 404)
        return match["instance"], match["rest"]

    def may(self, instance: str, token: str | None) -> bool:
        if token is None:
            options = instances.find(self.region, instance).metadata_options
            return getattr(options, "http_tokens", "optional") != "required"
        owner, end = self.tokens.get(token, ("", 0.0))
        return owner == instance and self.now() < end

    def about(self, instance: str) -> dict[str, str]:
        """Everything but credentials, by path."""
        found = instances.find(self.region, instance)
        notice = self.notices.get(instance)
        paths = {
            "meta-data/instance-id": found.id,
            "meta-data/instance-type": found.instance_type,
            "meta-data/ami-id": found.image_id,
            "meta-data/local-ipv4": "127.0.0.1",
            "meta-data/hostname": f"{found.id}.ec2.internal",
            "meta-data/instance-life-cycle": found.lifecycle or "on-demand",
            "meta-data/placement/availability-zone": found.availability_zone,
            "meta-data/placement/region": self.region,
            "dynamic/instance-identity/document": json.dumps(self.identity(found)),
        }
        if role := instances.role(self.region, instance):
            paths["meta-data/iam/info"] = json.dumps(
                {"Code": "Success", "InstanceProfileArn": instances.profile(self.region, instance).arn}
            )
            paths[CREDENTIALS] = role.name
        if notice:
            paths["meta-data/spot/instance-action"] = json.dumps(notice)
            paths["meta-data/spot/termination-time"] = notice["time"]
        return paths

    def identity(self, found) -> dict:
        place = {"availabilityZone": found.availability_zone, "region": self.region, "accountId": wire.ACCOUNT}
        return place | {"instanceId": found.id, "instanceType": found.instance_type, "imageId": found.image_id}

    def role(self, instance: str, name: str) -> wire.Response:
        role = instances.role(self.region, instance)
        if not role or name not in ("", role.name):
            return text("", 404)
        return text(role.name if not name else json.dumps(self.renewed(instance, role)))

    def renewed(self, instance: str, role) -> dict:
        """The role's credentials; new ones while the last still have an hour, as the real service does."""
        with self.lock:
            given = self.credentials.get(instance)
            if not given or given["until"] < self.now() + 3600:
                given = self.credentials[instance] = self.mint(instance, role)
        return {name: value for name, value in given.items() if name != "until"}

    def mint(self, instance: str, role) -> dict:
        from moto.sts.models import sts_backends

        session = sts_backends[wire.ACCOUNT]["aws"].assume_role(self.region, instance, role.arn, None, CREDENTIAL_LIFE, None)
        until = self.now() + CREDENTIAL_LIFE
        self.callers[session.access_key_id] = instance
        keys = {"AccessKeyId": session.access_key_id, "SecretAccessKey": session.secret_access_key, "Token": session.session_token}
        about = {"Code": "Success", "LastUpdated": stamp(self.now()), "Type": "AWS-HMAC", "Expiration": stamp(until), "until": until}
        return about | keys


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text(content: str, status: int = 200) -> wire.Response:
    return wire.Response(content, status, content_type="text/plain")
