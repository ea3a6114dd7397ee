"""What can be scored on a split without learning to read, beside what the right answers score.

    oracle          the row's own answer
    shuffled        another row's answer
    majority        the most frequent value of each field in training
    class prior     the same among the training rows of the cancer that the text names first
    nearest         the answer of the training row whose text is most like this one: cosine of TF-IDF vectors of words
    dictionary      every spelling of the knowledge base that is found (`data.scoring.dictionary`), taken as true
    with negation   the same, but for mentions near a word that takes them back (`data.scoring.negation`)

The last two and the class prior need the shipped task; the others work for any rows with fields.
"""

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable

from data import likeness, schema
from data.rows import Row
from data.score import score
from data.scoring import dictionary
from data.scoring.negation import unnegated_mentions
from data.scoring.values import LISTS

Answer = dict[str, object]
MOST = 5_000  # training rows
FIRST = ("cancer_type",)  # of several values where one is asked for the first is taken, else the last: what does best in training


def measure(train: list[Row], rows: list[Row], fields: list[str], seed: int = 0) -> dict[str, dict]:
    """The scores of every baseline that the fields allow, by its name."""
    ours = set(fields) == set(schema.fields())
    chosen = {name: make for name, make in BASELINES.items() if ours or name not in OURS}
    return {name: scored(make(train, rows, fields, seed), rows, fields, seed) for name, make in chosen.items()}


def beside_a_model(train: list[Row], rows: list[Row], fields: list[str] | None, seed: int = 0) -> dict[str, dict]:
    """The figures of what needs no model, to stand beside those of one: the usual answer, the nearest row's, and a dictionary's where there
    is one. Of more than 5,000 training rows so many are drawn: what is compared with each held-out row takes time."""
    train = train if len(train) <= MOST else random.Random(seed).sample(train, MOST)
    if fields is None:
        usual, _ = Counter(row.completion for row in train).most_common(1)[0]
        texts = {"majority": [usual] * len(rows), "nearest": [row.completion for row in nearest_rows(train, rows)]}
        return {name: _headline(score(answers, rows, [True] * len(rows), None, seed)) for name, answers in texts.items()}
    train = [row for row in train if row.output is not None]
    if not train:
        return {}
    ours = set(fields) == set(schema.fields())
    chosen = {name: BASELINES[made] for name, made in BESIDE.items() if ours or made not in OURS}
    return {name: _headline(scored(make(train, rows, fields, seed), rows, fields, seed)) for name, make in chosen.items()}


def _headline(scores: dict) -> dict:
    shown = {name: scores[name] for name in ("macro_f1", "row_exact", "exact", "token_f1", "intervals") if name in scores}
    return shown | {"fields": {name: field["f1"] for name, field in scores.get("fields", {}).items()}}


def scored(answers: list[Answer], rows: list[Row], fields: list[str], seed: int) -> dict:
    """The scores of a baseline's answers."""
    return score([json.dumps(answer, ensure_ascii=False) for answer in answers], rows, [True] * len(rows), fields, seed)


def text(scores: dict[str, dict], fields: list[str]) -> str:
    """The scores as a table for the terminal."""
    head = ["", "macro-F1", "95 %", "row exact", "95 %", "traps", "unsupported", *fields]
    lines = [head] + [[name, *_cells(result, fields)] for name, result in scores.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cells(result: dict, fields: list[str]) -> list[str]:
    headline = [
        cell for name in ("macro_f1", "row_exact") for cell in (_share(result[name]), "–".join(map(_share, result["intervals"][name])))
    ]
    rates = [_share(result["distractor_hit"]), _share(result["unsupported"])]
    return headline + rates + [_share(result["fields"][name]["f1"]) for name in fields]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def oracle(train: list[Row], rows: list[Row], fields: list[str], seed: int) -> list[Answer]:
    return [row.output for row in rows]


def shuffled(train: list[Row], rows: list[Row], fields: list[str], seed: int) -> list[Answer]:
    answers = [row.output for row in rows]
    random.Random(seed).shuffle(answers)
    return answers


def majority(train: list[Row], rows: list[Row], fields: list[str], seed: int) -> list[Answer]:
    return [_usual(train, fields)] * len(rows)


def class_prior(train: list[Row], rows: list[Row], fields: list[str], seed: int) -> list[Answer]:
    groups = defaultdict(list)
    for row in train:
        groups[row.output["cancer_type"]].append(row)
    usual = {name: _usual(group, fields) for name, group in groups.items()}
    first_named = [next((mention.value for mention in _mentions(row) if mention.field == "cancer_type"), None) for row in rows]
    return [usual.get(name) or _usual(train, fields) | {"cancer_type": name} for name in first_named]


def nearest(train: list[Row], rows: list[Row], fields: list[str], seed: int) -> list[Answer]:
    return [row.output for row in nearest_rows(train, rows)]


def nearest_rows(train: list[Row], rows: list[Row]) -> list[Row]:
    """For each row the training row whose text is most like its own."""
    texts = [likeness.words(row) for row in train]
    rarity = {word: math.log(len(texts) / count) for word, count in Counter(word for text in texts for word in set(text)).items()}
    index = defaultdict(list)
    for number, text in enumerate(texts):
        for word, weight in _vector(text, rarity).items():
            index[word].append((number, weight))
    return [train[_closest(_vector(likeness.words(row), rarity), index)] for row in rows]


def plain_dictionary(train: list[Row], rows: list[Row], fields: list[str], seed: int) -> list[Answer]:
    return [_answer(_mentions(row), fields) for row in rows]


def scoped_dictionary(train: list[Row], rows: list[Row], fields: list[str], seed: int) -> list[Answer]:
    return [_answer(unnegated_mentions(row.text), fields) for row in rows]


BASELINES: dict[str, Callable[[list[Row], list[Row], list[str], int], list[Answer]]] = {
    "oracle": oracle,
    "shuffled": shuffled,
    "majority": majority,
    "class prior": class_prior,
    "nearest": nearest,
    "dictionary": plain_dictionary,
    "with negation": scoped_dictionary,
}
BESIDE = {"majority": "majority", "nearest": "nearest", "dictionary": "with negation"}  # a model, in a run's report
OURS = ("class prior", "dictionary", "with negation")


def _usual(rows: list[Row], fields: list[str]) -> Answer:
    """The most frequent value of each field, whole lists counting as one; of equally frequent ones the first."""
    counts = {name: Counter(json.dumps(row.output.get(name)) for row in rows) for name in fields}
    return {name: json.loads(value_count.most_common(1)[0][0]) for name, value_count in counts.items()}


def _mentions(row: Row) -> list[dictionary.Mention]:
    return dictionary.mentions(dictionary.tokens(row.text))


def _answer(mentions: list[dictionary.Mention], fields: list[str]) -> Answer:
    answer: Answer = {}
    for name in fields:
        values = list(dict.fromkeys(mention.value for mention in mentions if mention.field == name))
        answer[name] = values if name in LISTS else values[0 if name in FIRST else -1] if values else None
    return answer


def _vector(words: list[str], rarity: dict[str, float]) -> dict[str, float]:
    weights = {word: count * rarity[word] for word, count in Counter(words).items() if word in rarity}
    length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
    return {word: weight / length for word, weight in weights.items()}


def _closest(vector: dict[str, float], index: dict[str, list[tuple[int, float]]]) -> int:
    """The number of the training row with the largest cosine; the first one if nothing is alike."""
    cosines: dict[int, float] = defaultdict(float)
    for word, weight in vector.items():
        for number, other in index[word]:
            cosines[number] += weight * other
    return max(cosines, key=lambda number: (cosines[number], -number), default=0)
