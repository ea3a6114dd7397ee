"""Refusals that AWS would give and moto does not, with AWS's own codes; each is one that a user of this emulation could meet."""

import threading
from collections.abc import Callable

from twin.aws import wire
from twin.aws.ec2 import instances

MODIFICATIONS = 4  # of one volume within 24 hours
LONGEST_TOKEN = 64  # characters
LARGEST_PARAMETER = 4096  # characters of a standard-tier parameter


class Validations:
    def __init__(self, now: Callable[[], float]):
        self.now = now
        self.modified: dict[str, list[float]] = {}  # volume to the moments of its changes
        self.launched: dict[str, tuple[dict, wire.Response]] = {}
        self.lock = threading.Lock()
        self.operations: dict[str, wire.Handler] = {
            "ec2.RunInstances": self.run_once,
            "ec2.StartInstances": startable,
            "ec2.StopInstances": stoppable,
            "ec2.RebootInstances": stoppable,
            "ec2.CreateVolume": makeable,
            "ec2.AttachVolume": attachable,
            "ec2.DetachVolume": detachable,
            "ec2.ModifyVolume": self.modifiable,
            "ssm.PutParameter": small_parameter,
        }

    def run_once(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """The same client token gives the same instances: a repeated request must not cost a second box."""
        token = request.parameters.get("ClientToken")
        if not token:
            return forward(request)
        check_token(token)
        with self.lock:
            parameters, response = self.launched.get(token, (request.parameters, None))
            if parameters != request.parameters:
                raise wire.Refusal("IdempotentParameterMismatch", f"The client token {token} was used with other parameters.")
            if response is None:
                response = forward(request)
            if response.status_code == 200:
                self.launched[token] = (parameters, response)
        return response

    def modifiable(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """A volume grows only, and four times a day at most."""
        volume = instances.volume(request.region, request.parameters["VolumeId"])
        if not volume:
            return forward(request)  # moto says that it does not exist
        if int(request.parameters.get("Size", volume.size)) < volume.size:
            raise wire.Refusal("InvalidParameterValue", "New size cannot be smaller than existing size")
        recent = [moment for moment in self.modified.get(volume.id, []) if moment > self.now() - 86_400]
        if len(recent) >= MODIFICATIONS:
            raise wire.Refusal("VolumeModificationRateExceeded", "You've reached the maximum modification rate per volume limit.")
        response = forward(request)
        if response.status_code == 200:
            self.modified[volume.id] = [*recent, self.now()]
        return response


def check_token(token: str) -> None:
    if len(token) > LONGEST_TOKEN:
        raise wire.Refusal(
            "InvalidParameterValue", f"Value ({token}) for parameter ClientToken is invalid: it has more than 64 characters."
        )


def makeable(request: wire.Request, forward: wire.Forward) -> wire.Response:
    check_token(request.parameters.get("ClientToken", ""))
    return forward(request)


def startable(request: wire.Request, forward: wire.Forward) -> wire.Response:
    refuse_in(request, ("stopping", "shutting-down", "terminated"), "started")
    return forward(request)


def stoppable(request: wire.Request, forward: wire.Forward) -> wire.Response:
    refuse_in(request, ("pending", "shutting-down", "terminated"), "stopped")
    return forward(request)


def refuse_in(request: wire.Request, states: tuple[str, ...], verb: str) -> None:
    for instance in request.listed("InstanceId"):
        record = instances.find(request.region, instance)
        if record and record._state.name in states:
            message = f"The instance '{instance}' is not in a state from which it can be {verb}."
            raise wire.Refusal("IncorrectInstanceState", message)


def attachable(request: wire.Request, forward: wire.Forward) -> wire.Response:
    volume = instances.volume(request.region, request.parameters["VolumeId"])
    instance = instances.find(request.region, request.parameters["InstanceId"])
    if not volume or not instance:
        return forward(request)  # moto names what is missing
    if instance._state.name not in ("running", "stopped"):
        raise wire.Refusal("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.attachment:
        raise wire.Refusal("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.zone.name != instance.availability_zone:
        message = f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'"
        raise wire.Refusal("InvalidVolume.ZoneMismatch", message)
    return forward(request)


def detachable(request: wire.Request, forward: wire.Forward) -> wire.Response:
    volume = instances.volume(request.region, request.parameters["VolumeId"])
    if not volume:
        raise wire.Refusal("InvalidVolume.NotFound", f"The volume '{request.parameters['VolumeId']}' does not exist.")
    if not volume.attachment:
        raise wire.Refusal("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    if "InstanceId" not in request.parameters:
        request = request.adding(InstanceId=volume.attachment.instance.id)
    return forward(request)


def small_parameter(request: wire.Request, forward: wire.Forward) -> wire.Response:
    standard = request.parameters.get("Tier", "Standard") == "Standard"
    if standard and len(request.parameters.get("Value", "")) > LARGEST_PARAMETER:
        message = f"Standard tier parameters support a maximum parameter value of {LARGEST_PARAMETER} characters."
        raise wire.Refusal("ValidationException", message)
    return forward(request)
