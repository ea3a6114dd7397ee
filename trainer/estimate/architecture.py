"""How each architecture is trained: in packs, one row at a time, or not at all. See docs/ARCHITECTURES.md.

A test makes the table: it trains a small random model of every class. An architecture that is not in it is refused by name.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conf.problem import Problem
from conf.schema import Quantisation, Recipe

TABLE = Path(__file__).with_name("architectures.json")


@dataclass(frozen=True)
class Verdict:
    of: str  # transformers' class
    outcome: str  # packed, alone or refused
    why: str
    gradient_checkpointing: bool = True  # whether the class supports it


@cache
def table() -> dict[str, Verdict]:
    """The verdicts, by `model_type` as a model's config.json states it."""
    return {kind: Verdict(**values) for kind, values in json.loads(TABLE.read_text(encoding="utf-8")).items()}


def verdict(name: str, config: dict) -> Verdict:
    """The verdict on the model `name` with this config.json; a Problem where it cannot be trained."""
    kind, another = config.get("model_type"), "choose another model: `model.id=owner/name`; docs/ARCHITECTURES.md lists what can be trained"
    if kind not in table():
        raise Problem(f"{name} is of the architecture `{kind}`, which was never tried here", another, "model_unavailable")
    tried = table()[kind]
    if tried.outcome == "refused":
        raise Problem(f"{name} is a {tried.of}, which cannot be trained here: {tried.why}", another, "model_unavailable")
    return tried


def check_gradient_checkpointing(settings: Recipe, verdict: Verdict) -> None:
    """A Problem where gradient checkpointing is asked of a class that does not support it."""
    if settings.train.gradient_checkpointing == "yes" and not verdict.gradient_checkpointing:
        what = f"{settings.model.id} is a {verdict.of}, which transformers cannot have compute activations again"
        raise Problem(what, "keep them: `train.gradient_checkpointing=no`; smaller packs take less memory, as in `train.pack_tokens=512`")


def stored_quantisation(config: dict) -> str | None:
    """How the model's owner has quantised its weights, in words; None where they are plain."""
    quantisation = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    if not quantisation:
        return None
    bits = 4 if quantisation.get("load_in_4bit") else 8 if quantisation.get("load_in_8bit") else quantisation.get("bits")
    kind = quantisation.get("bnb_4bit_quant_type") if quantisation.get("load_in_4bit") else None
    return " ".join(str(part) for part in (quantisation.get("quant_method", "quantised"), kind, f"{bits} bits" if bits else None) if part)


def check_quantised_once(settings: Recipe, config: dict) -> None:
    """A Problem where stored quantised weights would be quantised again, or merged into."""
    how = stored_quantisation(config)
    if how and settings.quant.kind is Quantisation.nf4:
        what = f"{settings.model.id} is stored quantised ({how}), and `quant=nf4` would quantise it again"
        raise Problem(what, "train it as it is stored: `quant=none`; or name the model that it was made from: `model.id=owner/name`")
    if how and settings.publish.merged:
        what = f"{settings.model.id} is stored quantised ({how}): merging into it would round the adapter away"
        alone = "publish.merged=false" + " publish.gguf=null" * bool(settings.publish.gguf)
        raise Problem(what, f"publish the adapter alone: `{alone}`; or name the model that it was made from")
