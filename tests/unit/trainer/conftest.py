"""A tiny random Llama on the CPU, rows of the shipped task, and models with an adapter that already does something.

Tests say in which number format they compute: fp32, unless they ask for bf16 (which every CPU can compute) or, as those that start
processes, for what this CPU computes natively. How close two results must be follows from the format.
"""

import json
import os
import shutil
from importlib.util import find_spec

os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order: equal means equal

from pathlib import Path

import environments
import loaded
import pytest
import torch
from machine import lacking
from peft import PeftModel

from conf import load, schema
from conf.text.quoting import quoted
from data.rows import read
from tests.unit.trainer.formats import FORMATS, computed_in
from trainer.model import model
from trainer.rows import prompt

ROOT = Path(__file__).parents[3]
TRAIN, VALIDATION = ROOT / "data/smoke_train.jsonl", ROOT / "data/smoke_validation.jsonl"
torch.set_num_threads(1)
loaded.curves()


@pytest.fixture(scope="module")
def browser():
    """A real browser."""
    if find_spec("playwright") is None:
        lacking("it needs a browser's driver: pip install -r tests/system/requirements.txt")
    place = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if place is None:
        lacking("it needs a browser: apt-get install --no-install-recommends chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True, scope="module")
def format_of_module(request):
    """fp32, unless the module's FORMAT names another one."""
    with computed_in(getattr(request.module, "FORMAT", "fp32")):
        yield


@pytest.fixture(params=FORMATS)
def number_format(request):
    """Lets a test run once in each format."""
    with computed_in(request.param):
        yield FORMATS[request.param]


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The folder of the tiny model."""
    from twin import models

    return loaded.once("models", lambda place: models.tiny(place / "tiny")) / "tiny"


@pytest.fixture(scope="session")
def settings_for(tiny):
    """Makes a recipe for the tiny model from overrides."""

    def make(runs: Path, *words: str) -> schema.Recipe:
        own = [f"model.id={quoted(tiny)}", f"data.train={quoted(TRAIN)}", f"data.validation={quoted(VALIDATION)}", f"runs={quoted(runs)}"]
        run = load.load(["cloud=twin", "experiment=smoke", *own, *words])
        return schema.Recipe(**{name: getattr(run, name) for name in schema.Recipe.__dataclass_fields__})

    return make


@pytest.fixture(scope="session")
def base_for(tiny):
    """Loads the tiny model anew: an adapter changes the model it is put on."""

    def make(kind: schema.Quantisation = schema.Quantisation.none) -> model.BaseModel:
        return model.load(schema.Model(str(tiny), "main", "", False), schema.Quant(kind, True))

    return make


@pytest.fixture
def base(base_for):
    return base_for()


@pytest.fixture
def template(base):
    return prompt.Prompt(base.tokenizer, base.stops)


@pytest.fixture
def tuned(base):
    return adapted(base)


def adapted(base: model.BaseModel) -> PeftModel:
    """The tiny model with an adapter whose weights are not zero, so that every one of them has a gradient."""
    torch.manual_seed(5)
    tuned = model.add_adapter(base, schema.Lora(8, 16, 0.0, "all-linear", {}), gradient_checkpointing=False)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    return tuned


@pytest.fixture
def examples(template):
    return [template.example(row) for row in read(TRAIN)[:6]]


STRETCHED = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0},
    "longrope": {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10_000.0, "factor": 4.0},
}


@pytest.fixture(params=STRETCHED)
def stretched(request, tiny, tmp_path, examples):
    """The tiny model with positions that are stretched as soon as a row is longer than its context: dynamic NTK, and Phi-3's."""
    config, context = json.loads((tiny / "config.json").read_text()), max(map(len, examples)) - 10
    half = config["hidden_size"] // config["num_attention_heads"] // 2
    config["rope_parameters"] = {
        name: value[:1] * half if isinstance(value, list) else value for name, value in STRETCHED[request.param].items()
    }
    if request.param == "longrope":
        config["rope_parameters"]["original_max_position_embeddings"] = context
    else:
        config["max_position_embeddings"] = context
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    return model.load(schema.Model(str(tmp_path), "main", "", False), schema.Quant(schema.Quantisation.none, False)), context


@pytest.fixture(scope="session")
def trained(settings_for) -> Path:
    """The folder of a finished run on the tiny model, as the shipped settings and this CPU have it. It is sealed: read it only."""
    from trainer import __main__ as command

    def train(volume: Path) -> None:
        settings = settings_for(volume / "runs")
        settings.run_id = "trained"
        folder = Path(settings.runs) / settings.run_id
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(load.dump(settings))
        with computed_in("native"):
            command.train(settings, folder)

    return loaded.once("a volume", train) / "runs/trained"


@pytest.fixture(scope="session")
def serving_python() -> Path:
    """A Python that has what `transformers serve` needs, and OpenAI's client."""
    return environments.python_with(ROOT / ".cache/serving", ROOT / "tests/unit/trainer/serving.txt")
