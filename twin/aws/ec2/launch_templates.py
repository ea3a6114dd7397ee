"""What a launch template says, the launch says: moto takes image, type and groups from it, and leaves the rest out."""

from dataclasses import replace
from urllib.parse import urlencode

from twin.aws import wire
from twin.aws.ec2 import instances

NAMED = "LaunchTemplate."
# RunInstances names a list by its singular; the rest keeps its name.
SINGULAR = {"SecurityGroupIds": "SecurityGroupId", "BlockDeviceMappings": "BlockDeviceMapping", "TagSpecifications": "TagSpecification"}
INNER = {"Tags": "Tag"}


def run(request: wire.Request, forward: wire.Forward) -> wire.Response:
    return forward(filled(request)[1])


def filled(request: wire.Request) -> tuple[str, wire.Request]:
    """The id of the template that a launch names, if any, and the launch with all that the template says."""
    parameters = request.parameters
    if not any(name.startswith(NAMED) for name in parameters):
        return "", request
    own = {name: value for name, value in parameters.items() if not name.startswith(NAMED)}
    named = {name.split(".")[0] for name in own}
    template = find(request.region, parameters)
    from_template = flat(template.get_version(parameters.get(NAMED + "Version", "$Default")).data)
    merged = {name: value for name, value in from_template.items() if name.split(".")[0] not in named} | own
    return template.id, replace(request, body=urlencode(merged).encode())


def find(region: str, parameters: dict[str, str]):
    """The template that a launch names."""
    backend, id, name = instances.backend(region), parameters.get(NAMED + "LaunchTemplateId"), parameters.get(NAMED + "LaunchTemplateName")
    template = next((one for one in backend.launch_templates.values() if id == one.id or name == one.name), None)
    if not template:
        kind = "InvalidLaunchTemplateId.NotFound" if id else "InvalidLaunchTemplateName.NotFoundException"
        raise wire.Refusal(kind, f"The specified launch template, with template {'ID' if id else 'name'} {id or name}, does not exist.")
    return template


def flat(content, path: str = "") -> dict[str, str]:
    """Nested content as the parameters of EC2's query protocol."""
    parameters: dict[str, str] = {}
    for name, value in content.items():
        name = path + (INNER.get(name, name) if path else SINGULAR.get(name, name))
        if isinstance(value, dict):
            parameters |= flat(value, name + ".")
        elif isinstance(value, list):
            for number, one in enumerate(value, 1):
                parameters |= flat(one, f"{name}.{number}.") if isinstance(one, dict) else {f"{name}.{number}": str(one)}
        elif value is not None:
            parameters[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return parameters


operations: dict[str, wire.Handler] = {"ec2.RunInstances": run}
