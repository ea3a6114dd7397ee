"""The agent's ends of Session Manager's channels: made with the role's rights, opened as WebSockets, each with a token of its own."""

import json
import re
import sys
import uuid
from pathlib import Path

from service import Service

# Beside the boxes of one grade in the repository, in the other below /opt/box: nearer than either is none.
sys.path.append(next(str(folder) for folder in Path(__file__).resolve().parents if (folder / "twin/channel").is_dir()))

from twin.channel import websocket

CONTROL, DATA = "control-channel", "data-channel"
ROLES = {CONTROL: "role=subscribe&stream=input", DATA: "role=publish_subscribe"}
TOKEN = re.compile(rb"<TokenValue>(.*?)</TokenValue>")


def open_channel(service: Service, kind: str, name: str, **more: str) -> websocket.WebSocket:
    """Named by the instance or by the session; `more` stands in the requests as well."""
    path = f"/v1/{kind}/{name}"
    asked = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4())}
    client = {key: value for key, value in more.items() if key == "ClientId"}
    answer = service.ask("ssmmessages", "POST", path, json.dumps(asked | client).encode(), {"Content-Type": "application/json"})
    token = TOKEN.search(answer)[1].decode()
    opened = websocket.connect(service.address, f"{path}?{ROLES[kind]}", service.signature("ssmmessages"))
    opened.send(json.dumps(asked | more | {"TokenValue": token}))
    return opened
