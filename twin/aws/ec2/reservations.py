"""On-Demand Capacity Reservations, of which moto has none: what a launch that names one takes of it, and gives back as it ends.

A launch must be of the reservation's type and zone, and find room in it (EC2, User Guide, "Launch instances into an existing Capacity
Reservation"); what runs in it is counted from EC2's own records, so that what stops or ends makes room again. Which reservation an
instance named stands in `taken`: a start of it asks for the same again.
"""

import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from twin.aws import wire
from twin.aws.ec2 import instances

TARGET = "CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId"
FULL = (
    "The targeted Capacity Reservation does not have enough available instance capacity to fulfill your request. Increase the instance "
    "capacity or target a different reservation."
)  # API Reference, "Error codes", ReservationCapacityExceeded


@dataclass
class Reservation:
    id: str
    kind: str
    zone: str
    count: int
    made: str
    state: str = "active"


class Reservations:
    def __init__(self, region: str):
        self.region = region
        self.lock = threading.Lock()
        self.known: dict[str, Reservation] = {}
        self.taken: dict[str, str] = {}  # instance to reservation
        self.operations: dict[str, wire.Handler] = {
            "ec2.CreateCapacityReservation": self.create,
            "ec2.DescribeCapacityReservations": self.describe,
            "ec2.CancelCapacityReservation": self.cancel,
            "ec2.RunInstances": self.run,
            "ec2.StartInstances": self.start,
        }

    def create(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        content, made = request.parameters, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        one = Reservation(
            f"cr-{uuid.uuid4().hex[:17]}", content["InstanceType"], content["AvailabilityZone"], int(content["InstanceCount"]), made
        )
        self.known[one.id] = one
        return wire.xml(request.operation, f"<capacityReservation>{self.shown(one)}</capacityReservation>")

    def describe(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        items = "".join(f"<item>{self.shown(one)}</item>" for one in self.known.values())
        return wire.xml(request.operation, f"<capacityReservationSet>{items}</capacityReservationSet>")

    def cancel(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        self.of(request.parameters["CapacityReservationId"]).state = "cancelled"
        return wire.xml(request.operation, "<return>true</return>")

    def run(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        named = request.parameters.get(TARGET)
        if not named:
            return forward(request)
        with self.lock:
            one, before = self.of(named), {each.id for each in instances.all_running(self.region)}
            zone = request.parameters.get("Placement.AvailabilityZone", one.zone)
            if (request.parameters.get("InstanceType"), zone) != (one.kind, one.zone):
                raise wire.Refusal("InvalidParameterCombination", f"The attributes of the launch do not match those of {named}.")
            self.check_room(one)
            response = forward(request)
            self.taken |= dict.fromkeys({each.id for each in instances.all_running(self.region)} - before, named)
        return response

    def start(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        for instance in request.listed("InstanceId"):
            record = instances.find(self.region, instance)
            if instance in self.taken and record and record._state.name != "running":
                self.check_room(self.of(self.taken[instance]))
        return forward(request)

    def of(self, named: str) -> Reservation:
        if named not in self.known:
            raise wire.Refusal("InvalidCapacityReservationId.NotFound", f"The capacity reservation '{named}' does not exist")
        return self.known[named]

    def check_room(self, one: Reservation) -> None:
        if one.state != "active" or not self.available(one):
            raise wire.Refusal("ReservationCapacityExceeded", FULL)

    def available(self, one: Reservation) -> int:
        running = {each.id for each in instances.all_running(self.region)}
        return max(0, one.count - sum(named == one.id and instance in running for instance, named in self.taken.items()))

    def shown(self, one: Reservation) -> str:
        content = {
            "capacityReservationId": one.id,
            "ownerId": wire.ACCOUNT,
            "instanceType": one.kind,
            "instancePlatform": "Linux/UNIX",
            "availabilityZone": one.zone,
            "tenancy": "default",
            "totalInstanceCount": one.count,
            "availableInstanceCount": self.available(one) if one.state == "active" else 0,
            "state": one.state,
            "endDateType": "unlimited",
            "instanceMatchCriteria": "targeted",
            "createDate": one.made,
        }
        return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in content.items())
