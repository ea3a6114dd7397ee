"""The documents of Session Manager that AWS has in every account, and the one that keeps an account's preferences.

Their content as `aws ssm get-document` shows it, in what an agent goes by: the kind of session, properties, and which parameters there are.
"""

import re
from dataclasses import dataclass, field

from twin.aws import wire

PORT = re.compile(r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]")
ANY = re.compile(r".*", re.DOTALL)


@dataclass(frozen=True)
class Document:
    kind: str  # of session
    parameters: dict[str, re.Pattern] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    properties: dict = field(default_factory=dict)

    def content(self) -> dict:
        """As the agent gets it; parameters are filled in there."""
        return {"schemaVersion": "1.0", "sessionType": self.kind, "inputs": {}, "properties": self.properties}


PREFERENCES = "SSM-SessionManagerRunShell"  # where no document is named
DOCUMENTS = {
    PREFERENCES: Document("Standard_Stream"),
    "AWS-StartInteractiveCommand": Document(
        "InteractiveCommands", {"command": ANY}, properties={"linux": {"commands": "{{ command }}", "runAsElevated": False}}
    ),
    "AWS-StartPortForwardingSession": Document(
        "Port",
        {"portNumber": PORT, "localPortNumber": re.compile(f"0|{PORT.pattern}")},
        {"portNumber": "80", "localPortNumber": "0"},
        {"portNumber": "{{ portNumber }}", "type": "LocalPortForwarding", "localPortNumber": "{{ localPortNumber }}"},
    ),
}


def find(name: str) -> Document:
    if name not in DOCUMENTS:
        raise wire.Refusal("InvalidDocument", f"Document with name {name} does not exist.")
    return DOCUMENTS[name]


def parameters(name: str, given: dict[str, list[str]]) -> dict[str, list[str]]:
    """All that the document takes, with its defaults; a refusal of anything else."""
    document = find(name)
    for key, values in given.items():
        pattern = document.parameters.get(key)
        if not pattern or len(values) != 1 or not pattern.fullmatch(values[0]):
            raise wire.Refusal("InvalidParameters", f"{name} takes no {key} {values}")
    return {key: [value] for key, value in document.defaults.items()} | given
