"""The fleet's part of the stack: what the settings say of it, and what stays as it is."""

from conf import schema
from conf.process.screen import screen
from remote.account.stack import NO_FLEET, Stack, fleet_parameters
from remote.aws.session import Aws


def wanted(aws: Aws, run: schema.Run, current: Stack, vpc: str) -> dict[str, str]:
    """What the stack shall have of a fleet. One that is there stays as it is where the settings name none."""
    parameters = fleet_parameters(run.fleet)
    if run.fleet.engine is schema.Engine.none and exists(current):
        screen.note("  = the fleet stays as it is: `inv init -- fleet=batch` changes it, with `fleet.max_vcpus=0` removes it")
        return {name: current.parameters[name] for name in NO_FLEET}
    if parameters == NO_FLEET:
        return parameters
    return parameters | {"FleetSubnets": ",".join(_subnets(aws, run.box.subnet, vpc))}


def exists(current: Stack) -> bool:
    """Whether the stack has a fleet."""
    return current.created and current.parameters.get("FleetMaxVcpus", "0") != "0"


def describe(aws: Aws, current: Stack) -> str:
    """The fleet in words."""
    if not exists(current):
        return "none"
    types, vcpus = current.parameters["FleetInstanceTypes"].replace(",", " or "), current.parameters["FleetMaxVcpus"]
    return f"AWS Batch, queues {aws.cloud.own}-spot and {aws.cloud.own}-on-demand, {vcpus} vCPUs of {types} at most"


def make_spot_role(aws: Aws) -> None:
    """Let EC2 make its own role for spot instances, unless it is there: Batch makes only its own one."""
    iam = aws.client("iam")
    try:
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    except iam.exceptions.InvalidInputException:  # it has been made
        return


def _subnets(aws: Aws, subnet: str | None, vpc: str) -> list[str]:
    """Where instances are launched: in the subnet that is named, else in any of the default ones, each in a zone of its own."""
    if subnet:
        return [subnet]
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "default-for-az", "Values": ["true"]}]
    return sorted(each["SubnetId"] for each in aws.client("ec2").describe_subnets(Filters=filters)["Subnets"])
