"""What settings come to where they are made for a user's own rows: `conf/experiment/own.yaml` refers to these."""

import re
from pathlib import PurePosixPath

from conf import paths

GENERIC = {"train", "training", "train_data", "data", "rows", "dataset", "all", "default"}
VISITS = 1200  # rows that training visits where there are few: 400 rows three times
MOST_EPOCHS = 10
SPARE = 1.25  # of the longest answer: so much more may a model write before it is cut off


def name(source: str) -> str:
    """What a run on these rows is called: by the file, by its folder where the file's name says nothing, or by the Hub's dataset."""
    path = PurePosixPath(source.split(":")[1] if source.startswith(paths.HUB) and ":" in source else source)
    parts = [path.name.split(".")[0], *(parent.name for parent in path.parents)]
    plain = [re.sub(r"[^a-z0-9_-]+", "-", part.lower()).strip("-_") for part in parts]
    return next((part for part in plain if part and part not in GENERIC), "own")[:40]


def lr(model: str) -> float:
    """The usual learning rate for a model by its size, as its name has it."""
    return 2e-3 if re.search(r"(?<![\d.])\d{1,3}M\b", model, re.IGNORECASE) or "tiny" in model.lower() else 2e-4


def epochs(rows: int) -> float:
    """How often each row is visited: few rows more often."""
    return min(MOST_EPOCHS, max(1.0, round(VISITS / rows, 1)))


def max_new_tokens(longest: int) -> int:
    """The limit of an answer where the longest one has so many tokens."""
    return -(-int(longest * SPARE + 4) // 8) * 8
