"""python -m trainer.evaluate.serve RUN_FOLDER PORT [SECONDS]: a finished run's model behind OpenAI's chat API, on 127.0.0.1.

The model is loaded once: `tuned` is it, `base` the same without its adapter. A request is answered as `predict` answers a row: the same
prompt, greedy, one after the other. A conversation of one user turn is a text as `predict` takes it: it gets the instruction of the
training rows, unless it begins with it. Any other is taken as it is. Standard input may hold {"schema": {...}}, as for `predict`.

With SECONDS it ends after so long without a request. In the image it listens on the addresses of its container's own network, which the box
alone reaches: LISTEN_ON is set there.
"""

import json
import os
import secrets
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from conf.problem import Problem
from trainer.evaluate import finished_run, try_page
from trainer.evaluate.predict import Predictor
from trainer.rows import answer_schema

HOST, MODELS = "127.0.0.1", ("tuned", "base")
LISTEN_ON = "TRAINER_LISTEN_ON"  # docker/Dockerfile
LARGEST = 16 << 20  # bytes of a request: a prompt has a few kilobytes
# What would change an answer and is not done here, and the values with which it changes nothing; null always is one.
UNSUPPORTED = {
    **{"temperature": (0,), "n": (1,), "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "logprobs": (False,)},
    **{"stop": ([],), "functions": ([],), "tool_choice": ("auto",), "modalities": (["text"],), "prediction": ()},
}


class BadRequest(Exception):
    """Why a request is not answered, in words for its sender."""

    def __init__(self, what: str, status: int = 400):
        super().__init__(what)
        self.status = status


@dataclass(frozen=True)
class Question:
    """What a request asks."""

    model: str
    row: dict  # as a line of `predict`
    limit: int | None  # tokens
    schema: dict | None  # of this request
    stream: bool


def question(request: object, instruction: str) -> Question:
    """The question of a request's body."""
    if not isinstance(request, dict):
        raise BadRequest("a request is a JSON object")
    if (model := request.get("model")) not in MODELS:
        raise BadRequest(f"there is no model {str(model)[:100]!r} here: ask `tuned` or `base`", 404)
    for name, neutral in UNSUPPORTED.items():
        if (value := request.get(name)) is not None and value not in neutral:
            raise BadRequest(f"`{name}` is not supported: answers are greedy, as the run was scored, and one at a time; leave it out")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("`messages` is a list of turns, the last one of the user")
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise BadRequest("`max_tokens` is a number of tokens, 1 or more")
    row = _row(messages, instruction) | ({"tools": request["tools"]} if request.get("tools") else {})
    return Question(model, row, limit, _schema(request.get("response_format")), bool(request.get("stream")))


def _row(messages: list, instruction: str) -> dict:
    only = messages[0] if len(messages) == 1 and isinstance(messages[0], dict) else {}
    if only.get("role") != "user" or not isinstance(text := only.get("content"), str):
        return {"messages": messages}
    return {"prompt": text} if text.startswith(instruction) else {"input": text}


def _schema(response_format: object) -> dict | None:
    """The schema that a request asks for, in OpenAI's form."""
    kind = response_format.get("type") if isinstance(response_format, dict) else response_format
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return {"type": "object"}
    inner = response_format.get("json_schema") if isinstance(response_format, dict) and kind == "json_schema" else None
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        raise BadRequest("`response_format` is text, json_object, or json_schema with a `schema`")
    return inner["schema"]


class ChatApi:
    """The API as a WSGI application."""

    def __init__(self, predictor: Predictor, folder: Path):
        self.predictor, self.folder = predictor, folder
        self.lock = threading.Lock()  # the adapter is switched off for `base`
        self.started = int(time.time())
        self.asked = time.monotonic()  # when the last request came

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked = time.monotonic()
        request = Request(environ)
        request.max_content_length = LARGEST
        try:
            response = self._answer(request)
        except BadRequest as refusal:
            response = _error(str(refusal), refusal.status)
        except HTTPException as error:
            response = _error(error.description or error.name, error.code or 400)
        except Problem as problem:
            response = _error(f"{problem.what}; {problem.hint}", 400)
        except (RuntimeError, MemoryError) as error:
            response = _error(str(finished_run.explain(error)), 500)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        # A page of any site can ask 127.0.0.1, under a name of its own: browsers say which page it is, other clients do not.
        own = request.headers.get("Origin") in (None, f"http://{request.host}")
        if not own or request.host.rpartition(":")[0] not in (HOST, "localhost"):
            raise BadRequest(f"only programs on this machine are answered, at {HOST}", 403)
        if (request.method, request.path) == ("GET", "/"):
            return self._page()
        if (request.method, request.path) == ("GET", "/v1/models"):
            return _json({"object": "list", "data": [self._model(name) for name in MODELS]})
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            raise BadRequest(f"{request.method} {request.path} is not answered here: POST /v1/chat/completions, GET /v1/models", 404)
        return self._complete(question(request.get_json(force=True), self.predictor.instruction))

    def _page(self) -> Response:
        nonce = secrets.token_urlsafe(16)
        page = try_page.render(self.folder, self.predictor.run.settings.model.id, self.predictor.instruction, MODELS, nonce)
        headers = {"Content-Security-Policy": try_page.policy(nonce), "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        return Response(page, mimetype="text/html", headers=headers)

    def _model(self, name: str) -> dict:
        return {"id": name, "object": "model", "created": self.started, "owned_by": self.predictor.run.settings.model.id}

    def _complete(self, asked: Question) -> Response:
        predictor = self.predictor
        row = predictor.row(json.dumps(asked.row), "the request")
        own = predictor.held_to(asked.schema) if asked.schema is not None else None
        with self.lock:
            answer = predictor.predict(row, asked.model == "base", asked.limit, own)
        completion = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": asked.model}
        reason = "stop" if answer["stopped"] else "length"
        message = {"role": "assistant", "content": answer["output"]}
        if asked.stream:
            return Response(_chunks(completion, message, reason), mimetype="text/event-stream")
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return _json(completion | {"object": "chat.completion", "choices": [choice]})


def _chunks(completion: dict, message: dict, reason: str) -> Iterator[str]:
    """The answer as a stream of one piece."""
    for delta, end in ((message, None), ({}, reason)):
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        yield f"data: {json.dumps(completion | {'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def _json(body: dict, status: int = 200) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, mimetype="application/json")


def _error(what: str, status: int) -> Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _json({"error": {"message": what, "type": kind, "param": None, "code": None}}, status)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing of a request is written down."""


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((os.environ.get(LISTEN_ON, HOST), port))
    except OSError as error:
        raise Problem(f"port {port} of {HOST} cannot be used ({error.strerror})", "name another one, or 0 for any", "refused") from error


def _end_unasked(api: ChatApi, server: BaseWSGIServer, seconds: int) -> None:
    """End the server when nobody has asked for so long, and no answer is being made."""
    while (left := api.asked + seconds - time.monotonic()) > 0 or api.lock.locked():
        time.sleep(max(left, 1.0))
    server.shutdown()


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)  # between libraries: nothing that a user can act on
    try:
        if len(sys.argv) not in (3, 4) or not all(word.isdecimal() for word in sys.argv[2:]):
            raise Problem("which run, and on which port?", "python -m trainer.evaluate.serve RUN_FOLDER PORT")
        folder, listening = Path(sys.argv[1]), _listen(int(sys.argv[2]))
        schema, _ = answer_schema.of_input(sys.stdin.read())
        with redirect_stdout(sys.stderr):
            api = ChatApi(Predictor(folder, schema), folder)
        address, port = listening.getsockname()
        server = make_server(HOST, port, api, threaded=True, request_handler=_Quiet, fd=listening.fileno())
        print(f"http://{address}:{port}/v1 answers as `tuned` and `base`, without a key", flush=True)
        print(f"http://{address}:{port}/ is a page to try them on; Ctrl-C ends both", flush=True)
        if sys.argv[3:]:
            threading.Thread(target=_end_unasked, args=(api, server, int(sys.argv[3])), daemon=True).start()
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    except (Problem, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {finished_run.explain(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
