"""What training makes of each architecture: packs its rows, takes them one at a time, or refuses it. See docs/ARCHITECTURES.md.

The table is made by a test that trains a small random model of every class. What is not in it was never tried, and is refused by name.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conf.problem import Problem

TABLE = Path(__file__).with_name("architectures.json")


@dataclass(frozen=True)
class Verdict:
    of: str  # transformers' class
    outcome: str  # packed, alone or refused
    why: str


@cache
def table() -> dict[str, Verdict]:
    """The verdicts, by `model_type` as a model's config.json states it."""
    return {kind: Verdict(**values) for kind, values in json.loads(TABLE.read_text(encoding="utf-8")).items()}


def verdict(name: str, config: dict) -> Verdict:
    """The verdict on the model `name` with this config.json; a Problem where it cannot be trained."""
    kind, another = config.get("model_type"), "choose another model: `model.id=owner/name`; docs/ARCHITECTURES.md lists what can be trained"
    if kind not in table():
        raise Problem(f"{name} is of the architecture `{kind}`, which was never tried here", another, "model_unavailable")
    found = table()[kind]
    if found.outcome == "refused":
        raise Problem(f"{name} is a {found.of}, which cannot be trained here: {found.why}", another, "model_unavailable")
    return found
