"""How alike two notes are: the Jaccard similarity of their runs of three words."""

import re
from collections import Counter
from functools import cache

COMMON = 120  # a run that so many notes hold tells little; leaving it out of the first count makes that count fast


class Likeness:
    """The notes so far, and which of them are like a new one. Exact: runs left out of the first count are counted in the second."""

    def __init__(self) -> None:
        self._holders: dict[str, list[int]] = {}  # run -> numbers of the notes that hold it
        self._notes: list[tuple[str, frozenset[str]]] = []

    def add(self, split: str, note: str) -> None:
        runs = runs_of(note, 3)
        for run in runs:
            self._holders.setdefault(run, []).append(len(self._notes))
        self._notes.append((split, runs))

    def alike(self, note: str, least: float) -> list[tuple[str, float]]:
        """Split and similarity of every note that is more than `least` like `note`."""
        runs = runs_of(note, 3)
        holders = [self._holders[run] for run in runs if run in self._holders]
        rare = [numbers for numbers in holders if len(numbers) < COMMON]
        shared: Counter[int] = Counter()
        for numbers in rare:
            shared.update(numbers)
        # similarity s needs more than s * len(runs) shared runs, of which the common ones are at most so many
        enough = least * len(runs) - (len(holders) - len(rare))
        near = [number for number, count in shared.items() if count > enough] if enough > 0 else range(len(self._notes))
        similarities = [(self._notes[number][0], _jaccard(runs, self._notes[number][1])) for number in near]
        return [(split, value) for split, value in similarities if value > least]


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


@cache
def normal(text: str) -> str:
    """`text` as it is compared: words only, small letters."""
    return " ".join(re.findall(r"[^\W_]+", text.replace("-\n", "").casefold()))


def runs_of(note: str, length: int) -> frozenset[str]:
    """Every run of `length` words of a normal note."""
    words = note.split()
    return frozenset(" ".join(words[start : start + length]) for start in range(len(words) - length + 1))
