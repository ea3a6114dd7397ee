"""What the emulated account would have to pay, by the second of the world's clock, at the prices of `prices.json`.

Everything that costs money is a stretch of time: an instance that runs, a disk of some size, a snapshot, the bytes in S3. After
each request that may change any of it the meter looks again, closes the stretches that ended and opens those that began. A
price that nobody has looked up is shown as unknown, never guessed. Requests, traffic and logs are not metered.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twin.aws import wire
from twin.aws.ec2 import instances, spot

PRICES = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
MINIMUM_SECONDS = {"instance": 60, "volume": 60}  # seconds: what starts costs a minute at least
MONTH = 30 * 86_400  # seconds of a GB-month, as in Amazon's own examples
GB = 2**30
CHANGING = ("RunInstances", "StartInstances", "StopInstances", "TerminateInstances")
CHANGING += ("CreateVolume", "DeleteVolume", "ModifyVolume", "CreateSnapshot", "DeleteSnapshot")


@dataclass
class Usage:
    kind: str  # instance, volume, snapshot, objects
    id: str
    what: str  # instance type with its market, volume type, tier
    gigabytes: float
    since: float
    until: float | None = None

    @property
    def thing(self) -> tuple:
        return self.kind, self.id, self.what, self.gigabytes

    def seconds(self, now: float) -> float:
        """Of use; the shortest time that is charged counts when it is over."""
        lasted = (now if self.until is None else self.until) - self.since
        return lasted if self.until is None else max(lasted, MINIMUM_SECONDS.get(self.kind, 0))

    def amount(self, now: float) -> float | None:
        rate = price(self.kind, self.what)
        if rate is None:
            return None
        return rate * self.seconds(now) / 3600 if self.kind == "instance" else rate * self.gigabytes * self.seconds(now) / MONTH


class Meter:
    def __init__(self, state: Path, region: str, now: Callable[[], float]):
        self.state, self.region, self.now = state, region, now
        self.lock = threading.Lock()
        self.open: dict[tuple, Usage] = {}
        self.closed: list[Usage] = []
        names = [f"ec2.{name}" for name in CHANGING] + ["s3.PUT", "s3.POST", "s3.DELETE"]
        self.operations: dict[str, wire.Handler] = dict.fromkeys(names, self.watch)

    def watch(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code < 300:
            self.update(objects_only=request.service == "s3")
        return response

    def update(self, objects_only: bool = False) -> None:
        """What is paid for now; the stretch of whatever changed begins or ends at this moment."""
        with self.lock:
            now = self.now()
            present = {one.thing: one for one in self.current_usage(now, objects_only)}
            for thing in [thing for thing in self.open if thing not in present and (not objects_only or thing[0] == "objects")]:
                ended = self.open.pop(thing)
                ended.until = now
                self.closed.append(ended)
            for thing, stretch in present.items():
                self.open.setdefault(thing, stretch)
            self.merge_objects()

    def current_usage(self, now: float, objects_only: bool) -> list[Usage]:
        usage = [Usage("objects", bucket, "standard", size / GB, now) for bucket, size in bucket_sizes().items() if size]
        if objects_only:
            return usage
        for one in instances.all_running(self.region):
            usage.append(Usage("instance", one.id, f"{one.instance_type} {one.lifecycle or 'on-demand'}", 0, now))
        for one in instances.backend(self.region).volumes.values():
            usage.append(Usage("volume", one.id, one.volume_type, float(one.size), now))
        for folder in (self.state / "snapshots").glob("snap-*"):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            usage.append(Usage("snapshot", folder.name, "standard", size / GB, now))
        return usage

    def merge_objects(self) -> None:
        """One stretch for all that a bucket held before: each upload opens a new one, and there are thousands."""
        gone = [one for one in self.closed if one.kind == "objects"]
        if len(gone) < 100:
            return
        self.closed = [one for one in self.closed if one.kind != "objects"]
        for bucket in {one.id for one in gone}:
            usage = [one for one in gone if one.id == bucket]
            since, until = min(one.since for one in usage), max(one.until for one in usage)
            weight = sum(one.gigabytes * one.seconds(until) for one in usage) / ((until - since) or 1)
            self.closed.append(Usage("objects", bucket, "standard", weight, since, until))

    # What is reported

    def costs(self) -> dict:
        """The ledger: one row a stretch, sums by kind, and what has no known price."""
        self.update()
        with self.lock:
            now, stretches = self.now(), sorted([*self.closed, *self.open.values()], key=lambda one: one.since)
            running = [(one.since, one.until or now) for one in stretches if one.kind == "instance"]
            amounts = [(one, one.amount(now)) for one in stretches]
            sums = dict.fromkeys(("instance", "volume", "snapshot", "objects"), 0.0)
            idle = 0.0
            for one, amount in amounts:
                sums[one.kind] += amount or 0
                if one.kind == "volume" and amount:
                    idle += amount * (1 - covered(one.since, one.until or now, running))
            rows = [row_of(one, amount, now) for one, amount in amounts]
            unknown = sorted({f"{one.kind} {one.what}" for one, amount in amounts if amount is None})
            return {"now": now, "rows": rows, "sums": sums | {"disk_while_stopped": idle}, "total": sum(sums.values()), "unknown": unknown}


def row_of(one: Usage, amount: float | None, now: float) -> dict:
    row = {"kind": one.kind, "id": one.id, "what": one.what, "gigabytes": one.gigabytes, "since": one.since, "until": one.until}
    return row | {"seconds": one.seconds(now), "usd": amount}


def covered(since: float, until: float, spans: list[tuple[float, float]]) -> float:
    """The share of a time in which any of the spans lay; the spans may overlap."""
    total, reached = 0.0, since
    for start, end in sorted(spans):
        start, end = max(start, reached), min(end, until)
        if end > start:
            total, reached = total + end - start, end
    return total / (until - since) if until > since else 0.0


def price(kind: str, what: str) -> float | None:
    """USD per hour of an instance, or per GB-month of anything else; None when nobody has looked it up."""
    if kind == "instance":
        name, market = what.split(" ")
        usd = spot.spot_price(name) if market == "spot" else PRICES["compute"]["prices"].get(name)
    else:
        table = {"volume": "storage", "snapshot": "snapshot", "objects": "objects"}[kind]
        usd = PRICES[table]["prices"].get(what)
    return None if usd is None else float(usd)


def bucket_sizes() -> dict[str, int]:
    """Bytes in each bucket, all versions."""
    from moto.s3.models import s3_backends

    buckets = s3_backends[wire.ACCOUNT]["aws"].buckets
    sizes = {}
    for name, bucket in list(buckets.items()):
        versions = [one for key in list(bucket.keys) for one in bucket.keys.getlist(key)]
        sizes[name] = sum(one.size for one in versions if hasattr(one, "size"))  # a delete marker has none
    return sizes
