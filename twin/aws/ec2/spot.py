"""Spot instances: their requests, what may not be done with them, and how AWS takes them back.

Persistent requests here launch no replacement for an instance that was terminated; they show as `open`, as on AWS, where they
would: a client that forgets to cancel one can be caught by that.
"""

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from twin.aws import wire
from twin.aws.ec2 import instances
from twin.aws.ec2.metadata import Metadata, stamp
from twin.aws.iam import linked_roles
from twin.aws.services.scheduler import call_ec2
from twin.clock import Clock

OPTIONS = "InstanceMarketOptions.SpotOptions."
WARNING = 120  # seconds between the notice and the end
KEY = "EC2-SPOT"  # stands in the journal where a caller would
PRICES = json.loads((Path(__file__).parents[1] / "services/prices.json").read_text(encoding="utf-8"))
UNSTOPPABLE = (
    "You can't stop the Spot Instance '{}' because it is associated with a one-time Spot Instance request. "
    "You can only stop Spot Instances associated with persistent Spot Instance requests."
)
UNSTARTABLE = "You can't start the Spot Instance '{}' because the associated Spot Instance request is not in an appropriate state."
ITEM = """<item><spotInstanceRequestId>{id}</spotInstanceRequestId><type>{kind}</type><state>{state}</state>
<status><code>{status}</code><message/></status><instanceId>{instance}</instanceId><createTime>{created}</createTime>
<instanceInterruptionBehavior>{behaviour}</instanceInterruptionBehavior><productDescription>Linux/UNIX</productDescription></item>"""


@dataclass
class Request:
    id: str
    instance: str
    kind: str  # one-time or persistent
    behaviour: str  # what an interruption does: terminate or stop
    created: str
    state: str = "active"
    status: str = "fulfilled"


class Spot:
    def __init__(self, clock: Clock, region: str, metadata: Metadata, gateway: Callable):
        self.clock, self.region, self.metadata, self.gateway = clock, region, metadata, gateway
        self.requests: dict[str, Request] = {}  # by instance
        self.lock = threading.Lock()
        self.interrupted: Callable[[str, str], None] = lambda instance, action: None  # told of each notice
        self.operations: dict[str, wire.Handler] = {
            "ec2.RunInstances": self.run,
            "ec2.StartInstances": self.start,
            "ec2.StopInstances": self.stop,
            "ec2.TerminateInstances": self.terminate,
            "ec2.DescribeSpotInstanceRequests": self.describe,
            "ec2.CancelSpotInstanceRequests": self.cancel,
            "ec2.DescribeSpotPriceHistory": self.prices,
        }

    def run(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        parameters = request.parameters
        if parameters.get("InstanceMarketOptions.MarketType") != "spot":
            return forward(request)
        kind = parameters.get(f"{OPTIONS}SpotInstanceType", "one-time")
        behaviour = parameters.get(f"{OPTIONS}InstanceInterruptionBehavior", "terminate")
        if kind == "one-time" and behaviour != "terminate":
            raise wire.Refusal("InvalidParameterCombination", f"A one-time request cannot {behaviour} its instances; use persistent.")
        linked_roles.ensure("spot.amazonaws.com")
        response = forward(request)
        for instance in instances.named(response):
            spot_request = Request(f"sir-{secrets.token_hex(4)}", instance, kind, behaviour, stamp(self.clock.now()))
            self.requests[instance] = spot_request
            instances.find(self.region, instance).spot_instance_request_id = spot_request.id
        return response

    def start(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        for instance in request.listed("InstanceId"):
            spot_request = self.requests.get(instance)
            if spot_request and request.by != KEY and spot_request.state not in ("disabled", "active"):
                raise wire.Refusal("IncorrectSpotRequestState", UNSTARTABLE.format(instance))
        return self.followed(request, forward, "active", "fulfilled")

    def stop(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        for instance in request.listed("InstanceId"):
            if instance in self.requests and self.requests[instance].kind == "one-time":
                raise wire.Refusal("UnsupportedOperation", UNSTOPPABLE.format(instance))
        if request.by == KEY:
            return self.followed(request, forward, "open", "instance-stopped-no-capacity")
        return self.followed(request, forward, "disabled", "instance-stopped-by-user")

    def terminate(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            status = "instance-terminated-no-capacity" if request.by == KEY else "instance-terminated-by-user"
            for spot_request in self.of(request):
                state = "open" if spot_request.kind == "persistent" else "closed"
                spot_request.state, spot_request.status = spot_request.state if spot_request.state == "cancelled" else state, status
        return response

    def followed(self, request: wire.Request, forward: wire.Forward, state: str, status: str) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            for spot_request in self.of(request):
                spot_request.state, spot_request.status = spot_request.state if spot_request.state == "cancelled" else state, status
        return response

    def of(self, request: wire.Request) -> list[Request]:
        return [self.requests[one] for one in request.listed("InstanceId") if one in self.requests]

    def describe(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        wanted = request.listed("SpotInstanceRequestId")
        parameters = request.parameters
        filters = {value: request.listed(f"{name[:-5]}.Value") for name, value in parameters.items() if name.endswith(".Name")}
        matching = [one for one in self.requests.values() if not wanted or one.id in wanted]
        names = {"instance-id": "instance", "state": "state", "spot-instance-request-id": "id", "type": "kind"}
        if unknown := set(filters) - set(names):
            raise wire.Refusal("InvalidParameterValue", f"this emulation knows the filters {', '.join(names)}, not {', '.join(unknown)}")
        matching = [one for one in matching if all(getattr(one, names[name]) in values for name, values in filters.items())]
        items = "".join(ITEM.format(**vars(one)) for one in matching)
        return wire.xml("DescribeSpotInstanceRequests", f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>")

    def cancel(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        ids = request.listed("SpotInstanceRequestId")
        known = {one.id: one for one in self.requests.values()}
        if missing := [one for one in ids if one not in known]:
            raise wire.Refusal("InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{missing[0]}' does not exist")
        for one in ids:
            known[one].state = "cancelled"
        items = "".join(f"<item><spotInstanceRequestId>{one}</spotInstanceRequestId><state>cancelled</state></item>" for one in ids)
        return wire.xml("CancelSpotInstanceRequests", f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>")

    def prices(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """A chosen share of the price on demand, in every zone: nobody's real spot price."""
        rows = []
        for kind in request.listed("InstanceType"):
            if price := spot_price(kind):
                for zone in (f"{self.region}{letter}" for letter in "abcd"):
                    place = f"<instanceType>{kind}</instanceType><availabilityZone>{zone}</availabilityZone>"
                    when = f"<timestamp>{stamp(self.clock.now())}</timestamp>"
                    rows.append(
                        f"<item>{place}<productDescription>Linux/UNIX</productDescription><spotPrice>{price}</spotPrice>{when}</item>"
                    )
        return wire.xml("DescribeSpotPriceHistory", f"<spotPriceHistorySet>{''.join(rows)}</spotPriceHistorySet><nextToken/>")

    # What AWS does by itself

    def interrupt(self, instance: str, seconds: float = WARNING) -> dict:
        """The notice stands in the instance's metadata; so many seconds later AWS stops or terminates it."""
        spot_request = self.requests.get(instance)
        if not spot_request:
            raise ValueError(f"{instance} is no spot instance")
        end = self.clock.now() + seconds
        self.metadata.notices[instance] = {"action": spot_request.behaviour, "time": stamp(end)}
        spot_request.status = f"marked-for-{'stop' if spot_request.behaviour == 'stop' else 'termination'}"
        self.interrupted(instance, spot_request.behaviour)
        self.clock.at(end, lambda: self.reclaim(spot_request))
        return {"instance": instance, "action": spot_request.behaviour, "time": datetime.fromtimestamp(end, UTC).isoformat()}

    def reclaim(self, spot_request: Request) -> None:
        if instances.running(self.region, spot_request.instance):
            operation = "StopInstances" if spot_request.behaviour == "stop" else "TerminateInstances"
            call_ec2(self.gateway, self.region, operation, {"InstanceId.1": spot_request.instance}, KEY)
        self.metadata.notices.pop(spot_request.instance, None)

    def capacity_is_back(self, instance: str) -> dict:
        """AWS starts what it had stopped for want of capacity."""
        spot_request = self.requests.get(instance)
        if not spot_request or spot_request.state != "open" or not instances.find(self.region, instance):
            raise ValueError(f"{instance} was not interrupted")
        return {"status": call_ec2(self.gateway, self.region, "StartInstances", {"InstanceId.1": instance}, KEY)}


def spot_price(kind: str) -> str | None:
    price = PRICES["compute"]["prices"].get(kind)
    return f"{float(price) * float(PRICES['spot']['share']):.6f}" if price else None
