"""Every preset of conf/model composes, fits on one L4, and is of a class whose small random model is trained as docs/MODELS.md says."""

import re
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from tests.unit.trainer import architectures, presets
from trainer.estimate import architecture

NAMES = sorted({path.stem for path in (presets.ROOT / "conf/model").glob("*.yaml")} - {"tiny"})  # made here, for tests


def test_each_preset_is_on_the_page_and_among_the_choices():
    assert sorted(presets.PRESETS) == NAMES
    choices = Path(presets.ROOT / "docs/SETTINGS.md").read_text()
    (line,) = re.findall(r"^\| `model` \|.*$", choices, re.MULTILINE)
    assert [name for name in NAMES if f"`{name}`" not in line] == []
    assert [name for name in NAMES if f"| `{name}` | `{presets.settings(name).model.id}` |" not in presets.PAGE.read_text()] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_composes_alone_and_in_an_experiment(name):
    run, planned = load.load(["cloud=twin", f"model={name}"]), presets.settings(name)
    assert run.model == planned.model and run.model.revision == "main" and re.fullmatch(r"[\w.-]+/[\w.-]+", run.model.id)
    assert run.data.chat_template_kwargs == planned.data.chat_template_kwargs


def test_what_a_preset_sets_for_its_template_yields_to_what_is_typed():
    words = ["cloud=twin", "model=qwen3_8b", "data.chat_template_kwargs={enable_thinking: true}"]
    assert load.load(words[:2]).data.chat_template_kwargs == {"enable_thinking": False}
    assert load.load(words).data.chat_template_kwargs == {"enable_thinking": True}


@pytest.mark.slow
def test_the_page_is_what_is_planned():
    assert presets.PAGE.read_text() == presets.page()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({preset.kind for preset in presets.PRESETS.values()}))
def test_a_small_random_model_of_each_preset_s_class_is_trained_as_the_page_says(kind):
    assert architectures.verdict(kind)["outcome"] == architecture.table()[kind].outcome != "refused"


def test_ministral_3_is_refused_on_the_laptop():
    with pytest.raises(Problem, match="of the architecture `mistral3`, which was never tried here"):
        architecture.verdict("mistralai/Ministral-3-3B-Instruct-2512", {"model_type": "mistral3"})
