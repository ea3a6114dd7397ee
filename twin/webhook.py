"""A receiver of webhooks, as Slack, ntfy or one's own would be: what is posted to its address can be looked at.

The address ends with a token, as theirs do; of ntfy's form it is the topic, which stands in the body.
"""

import json
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from werkzeug.wrappers import Request, Response


class Webhook:
    def __init__(self, state: Path, token: str, today: Callable[[], datetime]):
        self.path, self.token, self.today = state / "webhook.jsonl", token, today
        self.lock = threading.Lock()

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        return self.answer(Request(environ))(environ, start_response)

    def answer(self, request: Request) -> Response:
        try:
            body = json.loads(request.get_data())
        except ValueError:
            return Response("invalid_payload", 400)
        ntfy = request.path == "/" and isinstance(body, dict) and body.get("topic") == self.token
        if request.method != "POST" or not (ntfy or request.path.rpartition("/")[2] == self.token):
            return Response("no_service", 404)
        shown = body | {"topic": "TOKEN"} if ntfy else body
        line = {"time": f"{self.today():%Y-%m-%dT%H:%M:%SZ}", "path": request.path.replace(self.token, "TOKEN"), "body": shown}
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return Response("ok")
