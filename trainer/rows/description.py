"""The small files that describe a base model. They are whoever's the model is: what is read of them is of the type that a model's is."""

import json
from pathlib import Path

from conf.problem import Problem

LARGEST = 1 << 28  # bytes of a file: the largest tokenizer.json that is known has a tenth of it, and every other is far smaller
MOST = 1 << 31  # of what is counted: heads, experts, tokens
KINDS = {"model_type": str, "text_config": dict, "quantization_config": dict}
HEADS, HEAD_WIDTHS = ("num_attention_heads", "n_head", "n_heads", "num_heads"), ("head_dim", "v_head_dim")
TAKING_PART = ("num_experts_per_tok", "moe_topk", "top_k_experts", "moe_k", "num_selected_experts")  # by families; the first is usual
COUNTED = (*HEADS, *HEAD_WIDTHS, *TAKING_PART)  # some families have lists there, which nobody reads


def config(folder: Path) -> dict:
    """The model's config.json; empty where there is none."""
    path = folder / "config.json"
    found = read(path)
    for part in (found, found.get("text_config") or {}):
        for name, kind in KINDS.items():
            if not isinstance(part.get(name), kind | None):
                raise unusable(path, f"says {name}={str(part[name])[:40]!r}, and that is no {'text' if kind is str else 'object'}")
        for name in (*COUNTED, "num_key_value_heads"):
            counted = part.get(name)
            if (isinstance(counted, int) and not 0 < counted < MOST) or (name not in COUNTED and not isinstance(counted, int | None)):
                raise unusable(path, f"says {name}={str(counted)[:40]!r}, and that is no number of them")
        bits = (part.get("quantization_config") or {}).get("bits", 4)
        if bits not in range(1, 65):
            raise unusable(path, f"says bits={str(bits)[:40]!r} of its numbers")
    return found


def stops(folder: Path) -> list[int]:
    """The tokens at which the model says that it ends an answer."""
    path = folder / "generation_config.json"
    found = read(path).get("eos_token_id", config(folder).get("eos_token_id"))
    named = [] if found is None else found if isinstance(found, list) else [found]
    if not all(type(token) is int and 0 <= token < MOST for token in named):
        raise unusable(path, f"names {str(found)[:40]!r} as the token that ends an answer")
    return named


def read(path: Path) -> dict:
    """What a JSON file of the model says; nothing where there is none, a Problem where it is no JSON object."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(text(path))
    except (ValueError, RecursionError) as error:
        raise unusable(path, f"cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise unusable(path, "is no JSON object")
    return found


def text(path: Path) -> str:
    """What a file of the model says; a Problem where it is no text, or more of it than any model has."""
    bound(path.name, path.stat().st_size)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise unusable(path, f"cannot be read ({error})") from error


def bound(name: str, size: int) -> None:
    """Nothing, or a Problem where the file has more bytes than any model's."""
    if size > LARGEST:
        raise Problem(f"the model's {name} has {size:,} bytes", f"none that is known has more than {LARGEST:,}", "model_unavailable")


def unusable(path: Path, what: str) -> Problem:
    return Problem(f"the model's {path.name} {what}", "choose another: `model.id=owner/name`", "model_unavailable")
