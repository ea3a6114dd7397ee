"""A course of numbers as a curve of one line."""

import math
import sys

BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
LETTERS = "_.-=+*#@"  # where the terminal has no blocks


def sparkline(values: list[float], width: int) -> str:
    """The values from left to right in at most `width` columns, each column the mean of its share; what is no finite number is left out."""
    finite = [float(value) for value in values if math.isfinite(value)]
    columns = min(width, len(finite))
    shares = [finite[len(finite) * index // columns : len(finite) * (index + 1) // columns] for index in range(columns)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means, default=0.0), max(means, default=0.0)
    steps = BLOCKS if (getattr(sys.__stderr__, "encoding", None) or "").lower().startswith("utf") else LETTERS
    return "".join(steps[round((mean - low) / ((high - low) or 1) * (len(steps) - 1))] for mean in means)
