"""The rows made so far, and whether a new one repeats one of them."""

import json

from data.generator.likeness import Likeness, normal, runs_of

ACROSS, WITHIN = 0.35, 0.60  # the greatest similarity of two notes of two files, and of one
LONG_RUN = 13  # words in a row that a held-out note and a training note may not share
TELLING = 4  # answers with so many fields filled are not given twice


class Repetitions:
    def __init__(self) -> None:
        self._likeness = Likeness()
        self._notes: set[str] = set()
        self._answers: dict[str, str] = {}  # answer -> the split that gave it first
        self._runs: dict[str, set[str]] = {"train": set(), "held_out": set()}

    def add_if_new(self, row: dict, pool: str) -> bool:
        """Keep `row` and say True; or False where it repeats a row that is here."""
        split, note, answer = row["meta"]["split"], normal(row["input"]), telling(row["output"])
        runs = runs_of(note, LONG_RUN)
        other = "train" if pool == "held_out" else "held_out"
        if note in self._notes or self._answers.get(answer, split) != split or runs & self._runs[other]:
            return False
        if any(value > (WITHIN if near == split else ACROSS) for near, value in self._likeness.alike(note, ACROSS)):
            return False
        self._notes.add(note)
        if answer:
            self._answers[answer] = split
        self._runs[pool] |= runs
        self._likeness.add(split, note)
        return True


def telling(output: dict) -> str:
    """The answer as text, empty where it is too empty to give anything away."""
    return json.dumps(output, sort_keys=True) if sum(map(bool, output.values())) >= TELLING else ""
