"""Bootstrap: what sums over rows would have been, had other rows of the same kind been drawn."""

import random
from collections.abc import Callable, Hashable, Iterator

RESAMPLES = 1000

Counts = dict[Hashable, int]


def intervals(counts: list[Counts], figures: Callable[[Counts], dict[Hashable, float]], seed: int) -> dict[Hashable, list[float]]:
    """For each of `figures` the bounds between which 95 % of its values over 1,000 resamples of the rows lie."""
    samples = [figures(totals) for totals in resampled(counts, seed)]
    low, high = round(0.025 * RESAMPLES), round(0.975 * RESAMPLES) - 1
    ordered = {name: sorted(sample[name] for sample in samples) for name in samples[0]}
    return {name: [column[low], column[high]] for name, column in ordered.items()}


def resampled(counts: list[Counts], seed: int) -> Iterator[Counts]:
    """The sums of 1,000 samples of the rows, each as long as `counts` and drawn with repetition; the same for the same seed."""
    # All counts of a row live side by side in one long integer, so one sum() adds every column of a resample.
    names = list(counts[0])
    width = (len(counts) * max(max(row.values()) for row in counts)).bit_length() + 1
    shifts = {name: width * column for column, name in enumerate(names)}
    packed = [sum(row[name] << shift for name, shift in shifts.items()) for row in counts]
    mask, draw = (1 << width) - 1, random.Random(seed)
    for _ in range(RESAMPLES):
        total = sum(draw.choices(packed, k=len(packed)))
        yield {name: total >> shift & mask for name, shift in shifts.items()}


def total(counts: list[Counts]) -> Counts:
    """The sums over all rows."""
    return {name: sum(row[name] for row in counts) for name in counts[0]}
