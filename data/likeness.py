"""Rows that are copies or near copies of others, inside a file and across files.

Two texts are near copies if the Jaccard index of their 3-word shingles is NEAR or more. Held-out rows leak if they share a run of
13 words with a training row, the measure of the GPT-3 paper's appendix C. A run that a tenth of the training rows have is the
wording of the task, not of a row.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations

from data.rows import Row
from data.scoring.values import normalise

NEAR = 0.8
LEAK = 13  # words
ANCHOR = 8  # words in a row; near copies of any length worth the name share such a run
CROWD = 20  # rows with one anchor; beyond this it is boilerplate and would make too many pairs
WORDING = 0.1  # share of rows


def words(row: Row) -> list[str]:
    """The words of the row's own text, without case and punctuation."""
    return re.findall(r"\w+", normalise(row.text))


def grams(words: list[str], size: int) -> set[str]:
    """All runs of `size` words."""
    return {" ".join(words[start : start + size]) for start in range(len(words) - size + 1)}


def prompt(row: Row) -> str:
    """The whole prompt."""
    return normalise("\n".join(str(turn["content"]) for turn in row.messages))


def copies(rows: list[Row]) -> list[list[Row]]:
    """Groups of rows with the same prompt."""
    groups = defaultdict(list)
    for row in rows:
        groups[prompt(row)].append(row)
    return [group for group in groups.values() if len(group) > 1]


def near_copies(rows: list[Row]) -> list[tuple[Row, Row, float]]:
    """Pairs of rows whose texts are nearly the same but not the same, with their likeness."""
    texts = [words(row) for row in rows]
    anchors = defaultdict(list)
    for number, text in enumerate(texts):
        for gram in grams(text, ANCHOR):
            anchors[gram].append(number)
    pairs = {pair for numbers in anchors.values() if len(numbers) <= CROWD for pair in combinations(numbers, 2)}
    near = []
    for first, second in sorted(pairs):
        likeness = jaccard(grams(texts[first], 3), grams(texts[second], 3))
        if likeness >= NEAR and prompt(rows[first]) != prompt(rows[second]):
            near.append((rows[first], rows[second], likeness))
    return near


def jaccard(first: set, second: set) -> float:
    """The share of all members that both sets have."""
    return len(first & second) / len(first | second) if first or second else 1.0


def same_prompts(train: Iterable[Row], held_out: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Held-out rows whose prompt is also a training row's, each with one such row."""
    training_rows = {prompt(row): row for row in train}
    return [(row, training_rows[prompt(row)]) for row in held_out if prompt(row) in training_rows]


def shared_runs(train: list[Row], held_out: list[Row]) -> list[tuple[Row, str]]:
    """Held-out rows that share a run of 13 words with a training row, each with the first such run."""
    counts = Counter(gram for row in train for gram in grams(words(row), LEAK))
    limit = max(2, WORDING * len(train))
    leaks = []
    for row in held_out:
        text = words(row)
        runs = [" ".join(text[start : start + LEAK]) for start in range(len(text) - LEAK + 1)]
        wording = {place for start, run in enumerate(runs) if counts[run] > limit for place in range(start, start + LEAK)}
        # The end of the wording and a first word or two of the row's own are no run of the row.
        own = (run for start, run in enumerate(runs) if wording.isdisjoint(range(start, start + LEAK)))
        run = next((run for run in own if counts[run]), None)
        if run:
            leaks.append((row, run))
    return leaks
