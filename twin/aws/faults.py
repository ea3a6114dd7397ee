"""Faults that a test or `inv twin.fault` arms: calls that are refused, slow, cut or lost, in front of the emulated services.

`Faults` sits in front of AWS and of the Hub and sees each request first. A fault strikes the requests that it is about: the
first `after` of them pass, then `count` are struck (0: all). With a `seed` each is struck by chance, `share` of them, and the same
seed strikes the same ones. `only` narrows it to operations (`ssm.SendCommand`, `s3.*`), `key` to a path, `by` to the laptop or the box.
What happens to the box itself is in `twin/box/faults.py`.
"""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import psutil

from twin.aws import wire
from twin.aws.iam.keys import is_box

OWN = ("twin", "ec2messages", "ssmmessages", "taskcredentials")  # not what a client of ours meets: struck only by a fault that names it
READING = ("Describe", "Get", "List", "Head", "BatchGet", "BatchCheck", "Lookup", "Filter", "Search", "Validate", "Simulate")
EXPIRED = {"ec2": "RequestExpired", "s3": "ExpiredToken", "sts": "ExpiredToken", "iam": "ExpiredToken", "cloudformation": "ExpiredToken"}
THROTTLED = {"ec2": ("RequestLimitExceeded", 503), "s3": ("SlowDown", 503)}
SKEWED = {"s3": "RequestTimeTooSkewed", "ec2": "AuthFailure"}
SKEW_ALLOWED = 300  # seconds that a signature may be off
ZONES = "abcdf"  # of the region in which there are g6 instances


class ConnectionCut(Exception):
    """The connection is gone, and no answer comes."""


Strike = Callable[["Armed", wire.Request, Callable[[], wire.Response]], wire.Response]


@dataclass
class Kind:
    about: str
    strike: Strike
    only: str = "*"
    key: str = "*"
    by: str = "*"
    options: dict = field(default_factory=dict)  # further options, with their defaults
    intake: bool = False  # strikes while the body is still coming in
    count: int = 1  # how many are struck where nothing else is said; 0: all


@dataclass
class Armed:
    name: str
    kind: Kind
    count: int
    after: int
    only: str
    key: str
    by: str
    share: float
    chance: random.Random | None
    options: dict
    seen: int = 0
    struck: int = 0

    def may_strike(self, request: wire.Request) -> bool:
        return request.service not in OWN or self.only.startswith(f"{request.service}.")

    def due(self, request: wire.Request, by: str) -> bool:
        """Whether this request is one of its own, and its turn has come."""
        if not any(fnmatchcase(request.name, one) for one in self.only.split(",")) or not fnmatchcase(request.path, self.key):
            return False
        if self.by not in ("*", by) or (self.options.get("calls") == "changing" and not is_mutating(request.service, request.operation)):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.count and self.struck >= self.count):
            return False
        if self.chance and self.chance.random() >= self.share:
            return False
        self.struck += 1
        return True


class Faults:
    def __init__(self, skews: dict[str, float]):
        self.skews = skews  # seconds that a box's clock is wrong
        self.armed: list[Armed] = []
        self.lock = threading.Lock()

    def arm(
        self,
        name: str,
        count: int | None = None,
        after: int = 0,
        seed: int | None = None,
        share: float = 0.5,
        only: str | None = None,
        key: str | None = None,
        by: str | None = None,
        **options,
    ) -> dict:
        kind = KINDS[name]
        if unknown := set(options) - set(kind.options):
            raise ValueError(f"{name} takes {', '.join(kind.options) or 'nothing else'}, not {', '.join(unknown)}")
        chance = None if seed is None else random.Random(seed)
        places = (only or kind.only, key or kind.key, by or kind.by)
        armed = Armed(name, kind, kind.count if count is None else count, after, *places, share, chance, kind.options | options)
        with self.lock:
            self.armed.append(armed)
        return {"name": name, "about": kind.about}

    def clear(self) -> dict:
        """No call is struck any more; what befell the box stays."""
        with self.lock:
            self.armed.clear()
        return {}

    def listing(self) -> list[dict]:
        return [{"name": one.name, "seen": one.seen, "struck": one.struck, "count": one.count} for one in self.armed]

    def strikes(self, request: wire.Request, intake: bool) -> list[Armed]:
        if not self.armed:
            return []
        by = "box" if is_box(request.by) else "laptop"
        with self.lock:
            return [one for one in self.armed if one.kind.intake == intake and one.may_strike(request) and one.due(request, by)]

    # In front of AWS and of the Hub

    def cut_upload(self, environ: dict, service: str) -> None:
        """Cuts a body off while it comes in: called before anything of it is read."""
        request = wire.outline(environ, service)
        for one in self.strikes(request, intake=True):
            size = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(int(size * one.options["at"]))
            cut_connection(environ)

    def answer(self, request: wire.Request, proceed: Callable[[], wire.Response]) -> wire.Response:
        if request.service not in OWN and abs(self.skews.get(request.by, 0)) > SKEW_ALLOWED:
            return skew(None, request, proceed)
        struck = self.strikes(request, intake=False)
        return struck[0].kind.strike(struck[0], request, proceed) if struck else proceed()

    def wrap(self, application: Callable, service: str) -> Callable:
        """The same WSGI application behind the faults of that service."""

        def guarded(environ: dict, start_response: Callable) -> Iterable[bytes]:
            try:
                self.cut_upload(environ, service)
                request = wire.outline(environ, service)
                response = self.answer(request, lambda: wire.Response.from_app(application, environ))
            except wire.Refusal as refusal:
                response = refusal.reply(request)
            except ConnectionCut:
                return empty_response(start_response)
            return response(environ, start_response)

        return guarded


def is_mutating(service: str, operation: str) -> bool:
    """Whether a call may change something."""
    if operation in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"):
        return operation not in ("GET", "HEAD") and service not in (*OWN, "registry")
    return service not in OWN and not operation.startswith(READING)


def cut_connection(environ: dict) -> None:
    """The caller's connection ends here, as when a network goes away."""
    connection = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset in place of a polite end
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionCut


def empty_response(start_response: Callable) -> list[bytes]:
    """What WSGI wants to hear, though nobody is left to read it."""
    start_response("499 Gone", [("Content-Length", "0")])
    return [b""]


# What a strike does


def throttle(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    code, status = THROTTLED.get(request.service, ("ThrottlingException", 400))
    raise wire.Refusal("429" if request.service == "hub" else code, "Rate exceeded", 429 if request.service == "hub" else status)


def server_error(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    raise wire.Refusal("InternalError", "We encountered an internal error. Please try again.", armed.options["status"])


def refuse(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    code = {"ec2": "UnauthorizedOperation", "s3": "AccessDenied"}.get(request.service, "AccessDeniedException")
    raise wire.Refusal(code, f"not authorized to perform: {request.service}:{request.operation}", 403)


def expire(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    raise wire.Refusal(EXPIRED.get(request.service, "ExpiredTokenException"), "The security token included in the request is expired", 400)


def skew(armed: Armed | None, request: wire.Request, proceed) -> wire.Response:
    what = "The difference between the request time and the current time is too large."
    raise wire.Refusal(SKEWED.get(request.service, "InvalidSignatureException"), what, 403)


def lose_request(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    cut_connection(request.environ)


def lose_answer(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    """What was asked for is done."""
    proceed()
    cut_connection(request.environ)


def delay(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    time.sleep(armed.options["seconds"])
    return proceed()


def no_capacity(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    """Of the types and in the zones of the fault; the refusal names the others, as the real one does."""
    from twin.aws.ec2 import instances

    zones, types = (armed.options[name].split(",") if armed.options[name] else [] for name in ("zones", "types"))
    zone, kind = request.parameters.get("Placement.AvailabilityZone"), request.parameters.get("InstanceType")
    if request.operation == "StartInstances":
        stopped = instances.find(request.region, request.listed("InstanceId")[0])
        zone, kind = stopped.availability_zone, stopped.instance_type
    zone = zone or f"{request.region}a"
    if (zones and zone not in zones) or (types and kind not in types):
        armed.struck -= 1
        return proceed()
    others = [f"{request.region}{letter}" for letter in ZONES if zones and f"{request.region}{letter}" not in zones]
    choice = f" You can currently get such capacity by choosing {', '.join(others)}." if others else ""
    what = f"We currently do not have sufficient capacity in the Availability Zone you requested ({zone}).{choice}"
    raise wire.Refusal("InsufficientInstanceCapacity", what, 500)


def no_capacity_for_batch(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    """Everybody else gets instances."""
    if request.by != wire.BATCH:
        armed.struck -= 1
        return proceed()
    raise wire.Refusal("InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request.", 500)


def instance_not_found(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    ids = request.listed("InstanceId")
    if not ids:
        armed.struck -= 1
        return proceed()
    raise wire.Refusal("InvalidInstanceID.NotFound", f"The instance ID '{ids[0]}' does not exist")


def lose_object(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    """The object is taken with thanks, and is not there."""
    return wire.Response("", 200, headers={"ETag": '"00000000000000000000000000000000"'})


def unauthorised(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    raise wire.Refusal("401", "Invalid username or password.", 401)


def kill_caller(armed: Armed, request: wire.Request, proceed) -> wire.Response:
    """SIGKILL to the process that asks: before its call is done, or after it."""
    if armed.options["moment"] == "after":
        proceed()
    if pid := caller(request.environ):
        os.kill(pid, signal.SIGKILL)
    cut_connection(request.environ)


def caller(environ: dict) -> int | None:
    """The process at the other end of the connection; never this one."""
    port, here = int(environ["REMOTE_PORT"]), int(environ["SERVER_PORT"])
    for one in psutil.net_connections("tcp4"):
        if one.laddr and one.raddr and one.laddr.port == port and one.raddr.port == here and one.pid not in (None, os.getpid()):
            return one.pid
    return None


KINDS = {
    "throttle": Kind("AWS says that the rate is exceeded", throttle),
    "server-error": Kind("AWS answers 5xx", server_error, options={"status": 500}),
    "access-denied": Kind("AWS refuses for want of a right", refuse),
    "credentials-expired": Kind("the caller's session is over", expire, by="laptop"),
    "clock-skew": Kind("AWS refuses: the caller's clock is wrong", skew, by="box"),
    "request-lost": Kind("the connection goes away before the call is done", lose_request),
    "answer-lost": Kind("the call is done, its answer is lost", lose_answer, only="ssm.SendCommand"),
    "slow": Kind("calls take some seconds longer", delay, options={"seconds": 2.0}),
    "capacity": Kind("no capacity", no_capacity, only="ec2.RunInstances,ec2.StartInstances", options={"zones": "", "types": ""}),
    "batch-submit-lost": Kind("a job is taken, the answer is lost", lose_answer, only="batch.SubmitJob"),
    "batch-capacity-never": Kind("no capacity for any job of Batch", no_capacity_for_batch, only="ec2.RunInstances", count=0),
    "instance-lag": Kind("a new instance is not known yet", instance_not_found, only="ec2.DescribeInstances"),
    "s3-slow": Kind("S3 takes some seconds longer", delay, only="s3.*", options={"seconds": 2.0}),
    "s3-cut": Kind("an upload to S3 is cut in the middle", lose_request, only="s3.PUT", options={"at": 0.5}, intake=True),
    "object-lost": Kind("S3 takes an object and has it not", lose_object, only="s3.PUT"),
    "hub-error": Kind("the Hub answers 5xx", server_error, only="hub.*", options={"status": 503}),
    "hub-unauthorized": Kind("the Hub does not accept the token", unauthorised, only="hub.*"),
    "hub-slow": Kind("the Hub takes some seconds longer", delay, only="hub.*", options={"seconds": 2.0}),
    "hub-cut": Kind("an upload to the Hub is cut in the middle", lose_request, only="hub.PUT", options={"at": 0.5}, intake=True),
    "webhook-error": Kind("the receiver of webhooks answers 5xx", server_error, only="webhook.*", options={"status": 500}),
    "webhook-slow": Kind("the receiver of webhooks takes some seconds longer", delay, only="webhook.*", options={"seconds": 20.0}),
    "webhook-cut": Kind("the receiver of webhooks cuts the connection before it takes anything", lose_request, only="webhook.*"),
    "laptop-killed": Kind(
        "the calling process is killed at a call that changes something",
        kill_caller,
        by="laptop",
        options={"moment": "after", "calls": "changing"},
    ),
}
