"""The card's line for `transformers serve`: a merged model behind OpenAI's chat API gives the answers that were scored."""

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from conf import load
from trainer import __main__ as command
from trainer.files import read_json_lines
from trainer.record import card

pytestmark = pytest.mark.slow
RUN = "import sys; sys.argv = ['transformers', *sys.argv[1:]]; from transformers.cli.transformers import main; main()"


def test_it_answers_what_was_scored(serving_python, settings_for, tmp_path):
    settings = settings_for(tmp_path / "runs", "publish.merged=true", "quant=none", "train.steps=2", "data.eval_rows=2")
    settings.run_id, folder = "served", tmp_path / "runs/served"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    command.train(settings, folder)
    (line,) = re.findall(r"^transformers (serve \S+)$", card.render_merged(folder, "me/tiny-merged", "me/tiny"), re.MULTILINE)
    name = line.split()[1].replace("me/tiny-merged@served", f"{folder / 'merged'}@main")
    log = tmp_path / "log"
    with log.open("wb") as told:
        words = [serving_python, "-c", RUN, "serve", name, "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
        server = subprocess.Popen(words, stdout=told, stderr=told)
    try:
        address = started(server, log)
        for row in read_json_lines(folder / "predictions.jsonl"):
            asked = {"model": name, "messages": row["prompt"], "max_tokens": settings.data.max_new_tokens, "temperature": 0}
            request = urllib.request.Request(
                f"{address}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            answer = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request))
            assert answer["choices"][0]["message"]["content"] == row["merged"]
    finally:
        server.kill()
        server.wait()


def started(server: subprocess.Popen, log: Path) -> str:
    """Where the server listens, once it does."""
    for _ in range(1200):
        if found := re.search(r"Uvicorn running on (http://127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        assert server.poll() is None, log.read_text()[-2000:]
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])
