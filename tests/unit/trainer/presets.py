"""The presets of conf/model: what each is, what it needs on one L4, and how models of its class are trained.

    python -m tests.unit.trainer.presets     writes docs/MODELS.md anew

Sizes are those of each model's config.json, as the sources named here state them; what is not named is transformers' own default. The
model is made of them without weights, and planned by what `inv plan` plans with.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from conf import load
from conf.schema import Recipe
from data.rows import read
from tests.unit.trainer import architectures
from trainer.estimate import architecture, fit, memory
from trainer.estimate.shape import Shape, Tensor, shape
from trainer.rows import description, tokens
from trainer.rows.prompt import Prompt
from trainer.rows.sampler import Sampler, WeightedRows

ROOT = architectures.ROOT
PAGE, TOKENIZER = ROOT / "docs/MODELS.md", ROOT / ".cache/models/smollm2-135m"
L4 = fit.AvailableMemory("NVIDIA L4", int(22888 * 2**20 * (1 - memory.RESERVE)))  # as EC2 describes it
L40S = fit.AvailableMemory("NVIDIA L40S", int(45776 * 2**20 * (1 - memory.RESERVE)))  # likewise
LITGPT, TRANSFORMERS = "LitGPT's config.py", "transformers' defaults"


@dataclass(frozen=True)
class Preset:
    kind: str  # `model_type` in the model's config.json
    licence: str
    source: str  # of the sizes
    template: str  # its name in docs/TEMPLATES.md; empty where TRL has none of this model
    sizes: dict[str, Any]
    nested: dict[str, dict[str, Any]] = field(default_factory=dict)  # sizes of parts
    card: fit.AvailableMemory = L4
    cards: int = 1


def _sizes(hidden: int, inner: int, layers: int, heads: int, keys: int, vocabulary: int, tied: bool, **more: Any) -> dict[str, Any]:
    return {
        **{"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary},
        **{"num_attention_heads": heads, "num_key_value_heads": keys, "tie_word_embeddings": tied, **more},
    }


SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
GEMMA4_LAYERS = (["sliding_attention"] * 5 + ["full_attention"]) * 7
LFM2_LAYERS = ["full_attention" if layer in (2, 5, 8, 10, 12, 14) else "conv" for layer in range(16)]
PRESETS = {
    "smollm2_135m": Preset("llama", "Apache-2.0", "its config.json", "", _sizes(576, 1536, 30, 9, 3, 49152, True)),
    "qwen25_1_5b": Preset("qwen2", "Apache-2.0", LITGPT, "qwen2_5", _sizes(1536, 8960, 28, 12, 2, 151936, True)),
    "llama32_1b": Preset("llama", "Llama 3.2", LITGPT, "llama3_2", _sizes(2048, 8192, 16, 32, 8, 128256, True, head_dim=64)),
    "llama32_3b": Preset("llama", "Llama 3.2", LITGPT, "llama3_2", _sizes(3072, 8192, 28, 24, 8, 128256, True, head_dim=128)),
    "llama31_8b": Preset("llama", "Llama 3.1", LITGPT, "llama3_1", _sizes(4096, 14336, 32, 32, 8, 128256, False, head_dim=128)),
    "llama31_70b": Preset(
        "llama",
        "Llama 3.1",
        LITGPT,
        "llama3_1",
        _sizes(8192, 28672, 80, 64, 8, 128256, False, head_dim=128),
        card=L40S,
        cards=4,
    ),
    "qwen3_4b": Preset("qwen3", "Apache-2.0", LITGPT, "qwen3_instruct_2507", _sizes(2560, 9728, 36, 32, 8, 151936, True, head_dim=128)),
    "qwen3_8b": Preset("qwen3", "Apache-2.0", LITGPT, "qwen3", _sizes(4096, 12288, 36, 32, 8, 151936, False, head_dim=128)),
    "qwen35_4b": Preset(
        "qwen3_5",
        "Apache-2.0",
        "its model card, " + TRANSFORMERS,
        "qwen3_5_think",
        {},
        {"text_config": _sizes(2560, 9216, 32, 16, 4, 248320, True)},
    ),
    "gemma3_1b": Preset("gemma3_text", "Gemma", LITGPT, "gemma3", _sizes(1152, 6912, 26, 4, 1, 262144, True)),
    "gemma3_4b": Preset(
        "gemma3",
        "Gemma",
        LITGPT + ", its model card",
        "gemma3",
        {},
        {"text_config": _sizes(2560, 10240, 34, 8, 4, 262208, True), "vision_config": SIGLIP},
    ),
    "gemma4_e4b": Preset(
        "gemma4",
        "Apache-2.0",
        "its config.json, " + TRANSFORMERS,
        "gemma4",
        {},
        {
            "text_config": _sizes(2560, 10240, 42, 8, 2, 262144, True, num_kv_shared_layers=18, layer_types=GEMMA4_LAYERS),
            "vision_config": {"model_type": "gemma4_vision"},
            "audio_config": {"model_type": "gemma4_audio"},
        },
    ),
    "smollm3_3b": Preset("smollm3", "Apache-2.0", TRANSFORMERS, "", _sizes(2048, 11008, 36, 16, 4, 128256, True)),
    "phi4_mini": Preset("phi3", "MIT", LITGPT, "", _sizes(3072, 8192, 32, 24, 8, 200064, True, pad_token_id=199999)),
    "granite40_micro": Preset(
        "granitemoehybrid",
        "Apache-2.0",
        "its config.json",
        "",
        _sizes(2560, 8192, 40, 40, 8, 100352, True, shared_intermediate_size=8192, num_local_experts=0, layer_types=["attention"] * 40),
    ),
    "lfm25_1_2b": Preset(
        "lfm2", "LFM 1.0", "its config.json", "lfm2_2_5", _sizes(2048, 12288, 16, 32, 8, 65536, True, layer_types=LFM2_LAYERS)
    ),
}


def settings(name: str) -> Recipe:
    """The settings of a run of this preset: the shipped rows, in NF4."""
    return load.load(["cloud=twin", f"model={name}", "data=medical_ie", "experiment=medical_ie_8b"])


@cache
def model_shape(name: str) -> tuple[Shape, int]:
    """The model's sizes, and how many weights it has, those that are not loaded for text among them."""
    preset, classes = PRESETS[name], CONFIG_MAPPING[PRESETS[name].kind]
    config = classes(**preset.sizes, **preset.nested)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tensors = {weight: Tensor(tuple(values.shape), "BF16") for weight, values in model.named_parameters()}
    text_only = architecture.verdict(name, {"model_type": preset.kind}).of.endswith("ForCausalLM")
    return shape(tensors, config.to_dict(), text_only=text_only), sum(tensor.numbers for tensor in tensors.values())


@cache
def rows() -> tuple[tuple, tuple]:
    """The shipped rows to train on and those held out, in SmolLM2's tokens: other tokenizers cannot be had without a network."""
    data = load.load(["cloud=twin", "data=medical_ie"]).data
    template = Prompt(tokens.Tokens(TOKENIZER), description.stops(TOKENIZER), data)
    training, held_out = (read(ROOT / source) for source in (data.train, data.validation))
    return tuple(template.examples(training, data)), tuple(template.held_out(held_out, data)[: data.eval_rows])


def plan(name: str) -> tuple[Recipe, memory.Plan]:
    """The settings as its cards decide them, and the plan; a Problem where it does not fit."""
    run, (model, _), (training, held_out), preset = settings(name), model_shape(name), rows(), PRESETS[name]
    card, cards = preset.card, preset.cards
    tried = architecture.verdict(run.model.id, {"model_type": preset.kind})
    sampler, width = Sampler([WeightedRows(list(training))], run.seed, run.train.batch_size), memory.number_width(card.what)
    training_need = fit.training_need(model, sampler, width, cards)
    needs = fit.Needs(training_need, fit.scoring_need(model, list(held_out), width, cards), card, cards)
    _, run, _ = fit.decide(run, needs, sampler.longest, model.counted, tried.gradient_checkpointing, None)
    return run, memory.make_plan(model, run, sampler, list(held_out), card.what, cards=cards)


def line(name: str) -> str:
    """The preset's line in docs/MODELS.md."""
    preset, (run, planned), (model, weights) = PRESETS[name], plan(name), model_shape(name)
    verdict = architecture.table()[preset.kind]
    template = f"`{preset.template}`" if preset.template else "shown by the run"
    kwargs = ", ".join(f"`{key}: {str(value).lower()}`" for key, value in run.data.chat_template_kwargs.items())
    trained = {"packed": "in packs", "alone": "a row at a time"}[verdict.outcome]
    about = "" if model.counted else "about "
    memory_words = f"{about}{planned.bytes / fit.GB:.1f} GB{', recomputing' * (run.train.gradient_checkpointing == 'yes')}"
    on = f"on each of {preset.cards} {preset.card.what}{', cut up' * (run.train.fsdp == 'yes')}: " * (preset.cards > 1)
    cells = [
        f"`{name}`",
        f"`{run.model.id}`",
        f"{weights / 1e9:.2f}B",
        preset.licence + ", gated" * run.model.gated,
        template + f", with {kwargs}" * bool(kwargs),
        f"{on}{memory_words}; {run.train.eval_batch_size} rows, {sum(planned.scoring.values()) / fit.GB:.1f} GB",
        f"{trained} ({verdict.of})",
        preset.source,
    ]
    return f"| {' | '.join(cells)} |"


HEAD = """# Model presets

`model=NAME` names one of these; any other model of the Hub is `model.id=OWNER/NAME`. This page is made by
`python -m tests.unit.trainer.presets`, and made again by `tests/unit/trainer/preflight/test_presets.py` (in `make test-all`).

- **Planned on an L4**: what `inv plan` plans for the shipped rows (`experiment=medical_ie_8b`: NF4, steps of 16 rows in packs of at most
  4,096 tokens), of {available:.1f} GB that are usable; behind the semicolon how many rows are scored at once, and what that takes. *About*:
  activations are estimated, for what layers of its architecture keep could not be counted. The tokens are SmolLM2's; `inv plan` counts your
  rows in the model's own. *Cut up*: base weights are cut up over the cards (`train.fsdp`), and layers are gathered for each pass. None of
  these plans was compared with a card.
- **Trained**: what the proof before step 1 makes of a small random model of this class (transformers {version}), on a CPU. No preset but
  `smollm2_135m` was trained with its own weights here, and none of them on a GPU. Each run proves its own model on its own machine.
- **Template**: its line in [TEMPLATES.md](TEMPLATES.md), and what the preset sets for it. *Shown by the run*: TRL has no copy of it; every
  run holds its rows against what the model's own template writes, and stops where they differ.
- **Sizes from**: where the numbers come from that the plan is made of. `inv plan` reads those of the model's own files.

| preset | model | weights | licence | template | planned on an L4 | trained | sizes from |
|---|---|---|---|---|---|---|---|
"""
FOOT = """
Revisions are `main`: a run pins the commit that it finds, and its record and card name it. Ministral 3 (`Mistral3ForConditionalGeneration`)
has no preset: transformers does not load it as a causal language model, and a run of it is refused on the laptop.
"""


def page() -> str:
    """The text of docs/MODELS.md."""
    head = HEAD.format(available=L4.bytes / fit.GB, version=transformers.__version__)
    return head + "\n".join(map(line, PRESETS)) + "\n" + FOOT


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
