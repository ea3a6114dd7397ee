"""The rows made so far, and whether a new one is too much like one of them.

Counting shared shingles through an inverted index is exact and takes about a millisecond a row.
"""

import json
import re
from collections import Counter

ACROSS, WITHIN = 0.35, 0.60  # the greatest Jaccard similarity of two notes' three-word shingles
LONG_RUN = 13  # words in a row that a held-out note and a training note may not share
TELLING = 4  # answers with so many fields filled are not given twice


class Shelf:
    def __init__(self) -> None:
        self._holders: dict[str, list[int]] = {}  # shingle -> numbers of the rows that have it
        self._sizes: list[int] = []
        self._splits: list[str] = []
        self._notes: set[str] = set()
        self._answers: dict[str, str] = {}
        self._runs: dict[str, set[str]] = {"train": set(), "held_out": set()}

    def takes(self, row: dict, pool: str) -> bool:
        """Keep `row` and say True; or False where it repeats a row that is here."""
        split, words = row["meta"]["split"], normal(row["input"]).split()
        answer, shingles, runs = _telling(row["output"]), runs_of(words, 3), runs_of(words, LONG_RUN)
        other = "train" if pool == "held_out" else "held_out"
        if " ".join(words) in self._notes or self._answers.get(answer, split) != split or runs & self._runs[other]:
            return False
        if self._too_near(shingles, split):
            return False
        self._notes.add(" ".join(words))
        if answer:
            self._answers[answer] = split
        self._runs[pool] |= runs
        for shingle in shingles:
            self._holders.setdefault(shingle, []).append(len(self._sizes))
        self._sizes.append(len(shingles))
        self._splits.append(split)
        return True

    def _too_near(self, shingles: set[str], split: str) -> bool:
        shared: Counter[int] = Counter()
        for shingle in shingles:
            shared.update(self._holders.get(shingle, ()))
        least = ACROSS * len(shingles)  # Jaccard > limit needs more shared shingles than limit * size of either
        near = [(number, count) for number, count in shared.items() if count > least]
        return any(
            count / (len(shingles) + self._sizes[number] - count) > (WITHIN if self._splits[number] == split else ACROSS)
            for number, count in near
        )


def normal(text: str) -> str:
    """`text` as it is compared: words only, small letters."""
    return " ".join(re.findall(r"[^\W_]+", text.replace("-\n", "").casefold()))


def runs_of(words: list[str], length: int) -> set[str]:
    """Every run of `length` words."""
    return {" ".join(words[start : start + length]) for start in range(len(words) - length + 1)}


def _telling(output: dict) -> str:
    """The answer as text, empty where it is too empty to give anything away."""
    return json.dumps(output, sort_keys=True) if sum(map(bool, output.values())) >= TELLING else ""
