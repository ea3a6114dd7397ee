"""A finished run behind OpenAI's chat API answers what `predict` answers, as `tuned` and `base`, and refuses with a sentence."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from werkzeug.test import Client

from tests.unit.trainer.conftest import ROOT
from trainer.evaluate import predict, serve, try_page
from trainer.files import read_json_lines

FORMAT = "native"  # the server is a process of its own
ASK = """
import json, sys
from openai import OpenAI
address, *asked = json.load(sys.stdin)
client = OpenAI(base_url=address, api_key="none", max_retries=0)
print(json.dumps([model.id for model in client.models.list()]))
for one in asked:
    if one.get("stream"):
        text = "".join(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**one))
    else:
        text = client.chat.completions.create(**one).choices[0].message.content
    print(json.dumps(text))
"""


@pytest.fixture(scope="module")
def predictor(trained):
    return predict.Predictor(trained)


@pytest.fixture(scope="module")
def client(predictor, trained):
    return Client(serve.ChatApi(predictor, trained))


def ask(client, **values):
    request = {"model": "tuned", "messages": [{"role": "user", "content": "Stage II breast cancer."}]} | values
    return client.post("/v1/chat/completions", json=request, base_url="http://127.0.0.1:8000")


def text(response) -> str:
    assert response.status_code == 200, response.text
    return response.json["choices"][0]["message"]["content"]


def test_the_scored_rows_are_answered_as_they_were_scored_under_both_names(client, trained):
    for row in read_json_lines(trained / "predictions.jsonl")[:2]:
        for name in ("tuned", "base", "tuned"):
            assert text(ask(client, model=name, messages=row["prompt"])) == row[name]


def test_a_text_is_answered_as_predict_answers_it_also_where_the_instruction_stands_before_it(client, predictor):
    (row,) = [predictor.row(json.dumps({"input": "Stage II breast cancer."}), "line 1")]
    expected = predictor.predict(row)
    assert row.messages[-1]["content"].startswith(predictor.instruction) and predictor.instruction
    answer = ask(client)
    assert text(answer) == expected["output"]
    assert answer.json["choices"][0]["finish_reason"] == ("stop" if expected["stopped"] else "length")
    assert text(ask(client, messages=row.messages)) == expected["output"]


def test_fewer_tokens_may_be_asked_for(client):
    answer = ask(client, max_tokens=1)
    assert answer.json["choices"][0]["finish_reason"] == "length" and len(text(answer)) < len(text(ask(client, max_completion_tokens=20)))


def test_an_answer_may_come_as_a_stream_of_one_piece(client):
    answer = ask(client, stream=True)
    pieces = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.mimetype == "text/event-stream" and pieces.pop() == "[DONE]"
    deltas = [json.loads(piece)["choices"][0] for piece in pieces]
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == text(ask(client)) and deltas[-1]["finish_reason"]


@pytest.mark.parametrize("kind", ["json_schema", "json_object"])
def test_a_request_may_name_a_schema_of_its_own(kind, client):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    wanted = {"type": kind} | ({"json_schema": {"name": "mine", "schema": schema}} if kind == "json_schema" else {})
    jsonschema.validate(json.loads(text(ask(client, response_format=wanted))), schema if kind == "json_schema" else {"type": "object"})


def test_every_answer_is_held_to_the_server_s_schema(trained):
    held = Client(serve.ChatApi(predict.Predictor(trained, {"enum": ["yes", "no"]}), trained))
    assert {text(ask(held, model=name)) for name in ("tuned", "base")} <= {'"yes"', '"no"'}


@pytest.mark.parametrize(
    ("values", "status", "what"),
    [
        ({"model": "gpt-4"}, 404, "there is no model 'gpt-4' here: ask `tuned` or `base`"),
        ({"temperature": 0.7}, 400, "`temperature` is not supported: answers are greedy"),
        ({"n": 2}, 400, "`n` is not supported"),
        ({"stop": ["\n"]}, 400, "`stop` is not supported"),
        ({"max_tokens": 0.5}, 400, "`max_tokens` is a number of tokens"),
        ({"messages": []}, 400, "`messages` is a list of turns"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "the request"),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, 400, "tokens"),
        ({"response_format": {"type": "json_schema"}}, 400, "`response_format` is text, json_object, or json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "wrong"}}}}, 400, "cannot be held to this schema"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence_in_openai_s_form(values, status, what, client):
    answer = ask(client, **values)
    assert answer.status_code == status and what in answer.json["error"]["message"], answer.text
    assert answer.json["error"]["type"] == "invalid_request_error"


def test_what_changes_nothing_may_be_said(client):
    assert text(ask(client, temperature=0, n=1, top_p=0.9, seed=1, stop=None, user="me", response_format={"type": "text"})) == text(
        ask(client)
    )


def test_other_addresses_and_broken_bodies_are_sentences(client):
    local = {"base_url": "http://127.0.0.1:8000"}
    assert "is not answered here" in client.post("/v1/embeddings", json={}, **local).json["error"]["message"]
    assert client.post("/v1/chat/completions", data="{", **local).status_code == 400
    assert client.post("/v1/chat/completions", json=[1], **local).json["error"]["message"] == "a request is a JSON object"
    assert client.post("/v1/chat/completions", data=b"x" * (serve.LARGEST + 1), **local).status_code == 413
    assert [model["id"] for model in client.get("/v1/models", **local).json["data"]] == ["tuned", "base"]


def test_the_page_has_held_out_rows_and_may_ask_this_server_alone(client, predictor, trained):
    page = client.get("/", base_url="http://127.0.0.1:8000")
    (rows,) = re.findall('<script type="application/json" id="rows" nonce="[^"]+">(.*?)</script>', page.text)
    first = read_json_lines(trained / "predictions.jsonl")[0]
    assert json.loads(rows)[0]["expected"] == first["expected"]
    assert first["prompt"][-1]["content"].split("\n\n", 1)[1] == json.loads(rows)[0]["text"], "without its own wording of the instruction"
    policy = page.headers["Content-Security-Policy"]
    (nonce,) = set(re.findall("'nonce-([^']+)'", policy))
    assert "default-src 'none'; connect-src 'self';" in policy and page.text.count(f'nonce="{nonce}"') == 3
    assert nonce not in client.get("/", base_url="http://127.0.0.1:8000").text
    asked = {"model": "tuned", "messages": [{"role": "user", "content": "Stage II."}]}
    for origin, status in (("http://127.0.0.1:8000", 200), ("http://127.0.0.1:8001", 403), ("null", 403)):
        answer = client.post("/v1/chat/completions", json=asked, base_url="http://127.0.0.1:8000", headers={"Origin": origin})
        assert answer.status_code == status, origin


@pytest.mark.parametrize(
    "line", ["[]", '{"id": "1"}', '{"prompt": [], "expected": "x"}', '{"prompt": [{"role": "user"}], "expected": "x"}']
)
def test_rows_of_another_form_in_somebody_s_run_are_left_out_of_the_page(tmp_path, line):
    right = {"prompt": [{"role": "user", "content": "Do it.\n\nA note."}], "expected": "{}"}
    (tmp_path / "predictions.jsonl").write_text(f"{line}\n{json.dumps(right)}\n")
    assert try_page.held_out(tmp_path, "Do it.") == [{"text": "A note.", "expected": "{}"}]


@pytest.mark.parametrize("headers", [{"Origin": "https://example.com"}, {"Host": "example.com:8000"}])
def test_a_page_of_another_site_is_not_answered(headers, client):
    answer = client.get("/v1/models", base_url="http://127.0.0.1:8000", headers=headers)
    assert answer.status_code == 403 and "only programs on this machine" in answer.text


@pytest.fixture
def started(trained, tmp_path):
    """Starts the server of the finished run; all of them are ended."""
    servers = []

    def start(given: str = "", port: int = 0, folder: Path = trained, *more: str) -> SimpleNamespace:
        words = [sys.executable, "-m", "trainer", "serve", str(folder), str(port), *more]
        (tmp_path / "given").write_text(given)
        with (tmp_path / "given").open() as stdin:
            server = subprocess.Popen(words, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        servers.append(server)
        line = server.stdout.readline()
        address = re.match(r"(http://127\.0\.0\.1:\d+/v1) answers as `tuned` and `base`", line)
        return SimpleNamespace(process=server, address=address and address[1], said="" if address else server.stderr.read())

    yield start
    for server in servers:
        server.kill()
        server.communicate()


@pytest.mark.slow
def test_a_server_that_nobody_asks_ends_by_itself_and_not_while_somebody_does(started, trained):
    server = started("", 0, trained, "4")
    for _ in range(3):
        time.sleep(2)
        assert urllib.request.urlopen(f"{server.address}/models", timeout=60).status == 200
    assert server.process.wait(120) == 0


@pytest.mark.slow
def test_openai_s_own_client_gets_the_answers_of_predict(started, trained, serving_python, predictor):
    server, rows = started(), read_json_lines(trained / "predictions.jsonl")[:2]
    asked = [{"model": name, "messages": row["prompt"]} for row in rows for name in ("tuned", "base")]
    more = {"model": "tuned", "messages": [{"role": "user", "content": "Stage II breast cancer."}]}
    wanted = {"type": "json_schema", "json_schema": {"name": "mine", "schema": {"enum": ["yes", "no"]}}}
    given = json.dumps([server.address, *asked, more, more | {"stream": True}, more | {"response_format": wanted}])
    done = subprocess.run([serving_python, "-c", ASK], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    models, *texts = map(json.loads, done.stdout.splitlines())
    assert models == ["tuned", "base"]
    assert texts[:4] == [row[name] for row in rows for name in ("tuned", "base")]
    alone = predictor.predict(predictor.row(json.dumps({"input": "Stage II breast cancer."}), "line 1"))["output"]
    assert texts[4:6] == [alone, alone] and json.loads(texts[6]) in ("yes", "no")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 0


@pytest.mark.slow
def test_a_port_that_is_taken_no_finished_run_and_no_schema_are_sentences(started, tmp_path):
    first = started('{"schema": {"type": "object"}}')
    port = int(first.address.split(":")[2].split("/")[0])
    assert f"port {port} of 127.0.0.1 cannot be used" in started(port=port).said
    assert "holds no finished run" in started(folder=tmp_path).said
    assert "cannot be held to this schema" in started('{"schema": {"type": "wrong"}}').said
