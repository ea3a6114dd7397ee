"""Every spelling of every value that the generator's knowledge base has, found in a text without understanding a word of it.

The best that works on the shipped task without reading, so it is a baseline and no solution. Spellings are found as
whole words whatever their case and hyphens, the longest first; numbers of markers are read and their units converted. Two rules
keep it from being weak by accident: an abbreviation of up to four capitals must be in capitals and no part of a hyphenated word
("PD" is not in "PD-L1"), and a bare stage counts only near the word stage ("I" is a pronoun, "IV" an infusion).
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from data import schema
from data.generator.knowledge import cancers, tables
from data.generator.spelling import spellings
from data.scoring.values import DASHES

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
TOKEN = re.compile(rf"\{{\d+-\d+\}}|(?<!\w){NUMBER}(?!\w)|\w+|[^\w\s]")
SLOT = "{number}"
ABBREVIATION = re.compile(r"[A-Z]{2,4}")
SAMPLES = ("777", "7777")  # numbers that stand for all others; only one of four digits has a comma
NEAR = 3  # words between "stage" and a bare stage


@dataclass(frozen=True)
class Entry:
    """What a spelling stands for. A marker's number still has to be put into `value`, divided by `factor`."""

    field: str
    value: str
    text: str
    factor: Decimal | None = None
    places: int = 0


@dataclass(frozen=True)
class Mention:
    field: str
    value: str
    first: int  # its first token
    last: int


def tokens(text: str) -> list[str]:
    """Words, numbers and marks, as they are written but for odd dashes."""
    return TOKEN.findall(text.translate(DASHES))


def mentions(text_tokens: list[str]) -> list[Mention]:
    """All spellings in a list of tokens, from left to right, the longest ones where they overlap."""
    folded = [token.casefold() for token in text_tokens]
    matches, position = [], 0
    while position < len(text_tokens):
        end, entries = _longest(folded, position)
        while entries and not (accepted := [entry for entry in entries if _is_accepted(entry, text_tokens, folded, position, end)]):
            end, entries = _longest(folded[:end], position)  # a shorter spelling may count where this one does not
        if not entries:
            position += 1
            continue
        matches += [Mention(entry.field, _value(entry, text_tokens[position : end + 1]), position, end) for entry in accepted]
        position = end + 1
    return matches


def vocabulary() -> dict[str, list[str]]:
    """Every value that a field can have; of a marker with numbers only two samples."""
    lines = [line for cancer in cancers("all").values() for line in [*cancer.systemic, cancer.local, cancer.adjuvant]]
    lines += [line for cancer in cancers("all").values() for options in cancer.targeted.values() for line in options]
    genes = [gene for cancer in cancers("all").values() for gene in cancer.genes]
    values = {
        "cancer_type": list(cancers("all")),
        "stage": [value for value in schema.schema()["properties"]["stage"]["enum"] if value],
        "gene_mutation": [*tables()["gene"], *genes],
        "biomarker": [value for marker in tables()["marker"].values() for value in marker.get("values", {})],
        "treatment": [*tables()["treatment"], *(item for line in lines for item in line)],
        "response": list(tables()["response"]),
        "metastasis_site": list(tables()["site"]),
    }
    return {name: list(dict.fromkeys(field_values)) for name, field_values in values.items()}


@cache
def _tree() -> dict:
    """The spellings by their tokens: a branch for each next token, the entries of a whole spelling under None."""
    root: dict = {}
    for entry in [*_plain_entries(), *_numbered_entries()]:
        branch = root
        for token in tokens(entry.text.replace(SLOT, "{0-0}")):
            branch = branch.setdefault(SLOT if re.fullmatch(r"\{\d+-\d+\}", token) else token.casefold(), {})
        entries = branch.setdefault(None, [])
        if not any((earlier.field, earlier.value) == (entry.field, entry.value) for earlier in entries):
            entries.append(entry)
    return root


def _plain_entries() -> list[Entry]:
    return [
        Entry(name, value, spelling.text)
        for name, values in vocabulary().items()
        for value in values
        for spelling in spellings(name, value)
    ]


def _numbered_entries() -> list[Entry]:
    entries = {}
    for name, marker in tables()["marker"].items():
        if "values" in marker:
            continue
        places = len(str(marker.get("step", 1)).partition(".")[2])
        for sample in SAMPLES:
            for spelling in spellings("biomarker", f"{name} {sample}{marker['unit']}"):
                number = next(digits for digits in re.findall(NUMBER, spelling.text) if digits.replace(",", "").startswith("777"))
                text = spelling.text.replace(number, SLOT)
                factor = Decimal(number.replace(",", "")) / Decimal(sample)
                entries[text] = Entry("biomarker", f"{name} {SLOT}{marker['unit']}", text, factor, places)
    return list(entries.values())


def _longest(folded: list[str], position: int) -> tuple[int, list[Entry]]:
    """The last token of the longest spelling that begins at `position`, and what it stands for."""
    best: tuple[int, list[Entry]] = (position, [])
    branches = [(position, _tree())]
    while branches:
        here, branch = branches.pop()
        if None in branch and (here - 1 > best[0] or not best[1]):
            best = (here - 1, branch[None])
        if here < len(folded):
            steps = [folded[here]] + [SLOT] * bool(re.fullmatch(NUMBER, folded[here]))
            branches += [(here + 1, branch[step]) for step in steps if step in branch]
    return best


def _is_accepted(entry: Entry, text_tokens: list[str], folded: list[str], first: int, last: int) -> bool:
    if entry.field == "stage" and entry.text == entry.value:
        return "stage" in folded[max(0, first - NEAR) : first]
    if not ABBREVIATION.fullmatch(entry.text):
        return True
    beside = text_tokens[max(0, first - 1) : first] + text_tokens[last + 1 : last + 2]
    return text_tokens[first] == entry.text and "-" not in beside


def _value(entry: Entry, mention_tokens: list[str]) -> str:
    if entry.factor is None:
        return entry.value
    slots = [index for index, token in enumerate(tokens(entry.text.replace(SLOT, "{0-0}"))) if token == "{0-0}"]
    number = Decimal(mention_tokens[slots[0]].replace(",", "")) / entry.factor
    return entry.value.replace(SLOT, str(float(number)) if entry.places else f"{number.normalize():f}")
