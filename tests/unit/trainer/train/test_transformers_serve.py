"""The card's line for `transformers serve`: a merged model behind OpenAI's chat API gives the answers that were scored."""

import json
import re
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest
from machine import lacking

from conf import load
from tests.unit.trainer.conftest import ROOT
from trainer import __main__ as command
from trainer.files import read_json_lines
from trainer.record import card

pytestmark = pytest.mark.slow
PLACE, PACKAGES = ROOT / ".cache/serving", ROOT / "tests/unit/trainer/serving.txt"
RUN = "import sys; sys.argv = ['transformers', *sys.argv[1:]]; from transformers.cli.transformers import main; main()"


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has what the server needs, before the packages of this one; made once."""
    python, made = PLACE / "bin/python", PLACE / "made"
    if made.exists() and made.read_text() == PACKAGES.read_text():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", PLACE], check=True)
    (packages,) = PLACE.glob("lib/python*/site-packages")
    (packages / "project.pth").write_text(str(Path(sysconfig.get_path("purelib")).resolve()) + "\n")
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", PACKAGES], capture_output=True, text=True)
    if done.returncode:
        lacking(f"the server's packages cannot be installed: {(done.stderr.splitlines() or ['pip says nothing'])[-1]}")
    made.write_text(PACKAGES.read_text())
    return python


def test_it_answers_what_was_scored(python, settings_for, tmp_path):
    settings = settings_for(tmp_path / "runs", "publish.merged=true", "quant=none", "train.steps=2", "data.eval_rows=2")
    settings.run_id, folder = "served", tmp_path / "runs/served"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    command.train(settings, folder)
    (line,) = re.findall(r"^transformers (serve \S+)$", card.render_merged(folder, "me/tiny-merged", "me/tiny"), re.MULTILINE)
    name = line.split()[1].replace("me/tiny-merged@served", f"{folder / 'merged'}@main")
    log = tmp_path / "log"
    with log.open("wb") as told:
        words = [python, "-c", RUN, "serve", name, "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
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
