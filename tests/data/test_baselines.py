"""What can be scored on the shipped validation rows without reading: the figures that README.md quotes."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from data import schema
from data.rows import read_jsonl
from data.score import score

ROOM = Path(schema.__file__).parent
SCALARS = ("cancer_type", "stage", "response")


@pytest.fixture(scope="module")
def train():
    return read_jsonl(ROOM / "train.jsonl")


@pytest.fixture(scope="module")
def validation():
    return read_jsonl(ROOM / "validation.jsonl")


def figures(answers, rows):
    return score([json.dumps(answer) for answer in answers], rows, [True] * len(rows), schema.fields())


def quoted(result):
    """Whether README.md states these figures."""
    return f"| {result['macro_f1']:.3f} | {result['row_exact']:.3f} |" in (ROOM / "README.md").read_text(encoding="utf-8")


def test_an_oracle_is_perfect(validation):
    result = score([row.completion for row in validation], validation, [True] * len(validation), schema.fields())
    names = ("json_valid", "schema_valid", "macro_f1", "row_exact")
    assert [result[name] for name in names] == [1.0] * 4 and result["hallucination"] == 0.0
    assert result["intervals"]["macro_f1"] == [1.0, 1.0]


def test_other_rows_answers_score_little(validation):
    answers = [row.output for row in validation]
    random.Random(0).shuffle(answers)
    result = figures(answers, validation)
    assert result["json_valid"] == 1.0
    assert result["macro_f1"] < 0.2 and result["row_exact"] < 0.03
    assert quoted(result)


def test_the_most_frequent_answer_scores_little(train, validation):
    def most(name):
        return json.loads(Counter(json.dumps(row.output[name]) for row in train).most_common(1)[0][0])

    result = figures([{name: most(name) for name in schema.fields()}] * len(validation), validation)
    assert result["macro_f1"] < 0.15 and result["row_exact"] < 0.03  # the notes without a cancer
    assert quoted(result)


def test_knowing_every_spelling_without_reading_is_not_enough(train, validation):
    lexicon = Lexicon(train)
    result = figures([lexicon.answer(row.messages[-1]["content"]) for row in validation], validation)
    assert 0.5 < result["macro_f1"] < 0.88
    assert result["row_exact"] < 0.25
    assert quoted(result)


class Lexicon:
    """Finds every spelling that the training notes use for any fact, asserted or not, and takes it as true."""

    def __init__(self, rows):
        self.values = {}
        for row in rows:
            text = row.messages[-1]["content"].partition("\n\n")[2]
            for field, known, _, start, end in row.meta["evidence"]:
                key, value = (re.sub(r"\d{2,}", "#", part) if field == "biomarker" else part for part in (text[start:end], known))
                self.values[key.casefold()] = (field, value)
        longest_first = sorted(self.values, key=len, reverse=True)
        self.pattern = re.compile(
            r"(?<!\w)(" + "|".join(re.escape(key).replace(r"\#", r"\d+") for key in longest_first) + r")(?!\w)", re.IGNORECASE
        )

    def answer(self, text):
        found = {name: [] for name in schema.fields()}
        for match in self.pattern.finditer(text):
            surface = match[0].casefold()
            key = surface if surface in self.values else re.sub(r"\d{2,}|(?<=[ ])\d(?=%| )", "#", surface)
            if key in self.values:
                field, value = self.values[key]
                number = re.search(r"(\d+)(?=\D*$)", surface) if "#" in value else None
                found[field].append(value.replace("#", number[1]) if number else value)
        return {
            name: (values[-1] if name == "response" else values[0]) if name in SCALARS and values else None if name in SCALARS else values
            for name, values in found.items()
        }
