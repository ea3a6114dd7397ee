"""`{{ssm:NAME}}` in a document: the agent puts the value of that parameter in its place, wherever it stands, in a script too."""

import http.client
import re

from service import Service

REFERENCE = re.compile(r"\{\{ *ssm:([/\w.-]+) *\}\}", re.ASCII)  # parameterstore.go
AT_ONCE = 10  # names of one GetParameters call


class Invalid(Exception):
    """The document cannot be carried out: what the agent says of it."""


def resolved(commands: list[str], service: Service) -> list[str]:
    names = list(dict.fromkeys(name for command in commands for name in REFERENCE.findall(command)))
    if not names:
        return commands
    values = fetched(names, service)
    return [REFERENCE.sub(lambda match: values[match[1]], command) for command in commands]


def fetched(names: list[str], service: Service) -> dict[str, str]:
    parameters, missing = [], []
    for start in range(0, len(names), AT_ONCE):
        try:
            answer = service.call("ssm", "AmazonSSM.GetParameters", {"Names": names[start : start + AT_ONCE], "WithDecryption": False})
        except (OSError, http.client.HTTPException) as error:
            raise Invalid(str(error)) from error
        parameters += answer["Parameters"]
        missing += answer.get("InvalidParameters", [])
    if missing:
        raise Invalid(f"Input contains invalid parameters [{' '.join(missing)}]")
    if secret := [one["Name"] for one in parameters if one["Type"] == "SecureString"]:
        raise Invalid(f"Parameters [{' '.join(secret)}] of type SecureString are not supported")
    return {one["Name"]: one["Value"] for one in parameters}
