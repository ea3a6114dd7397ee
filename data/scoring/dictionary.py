"""Every spelling of every value that the generator's knowledge base has, found in a text without understanding a word of it.

The most that can be done with the shipped task short of reading, so it is a measuring stick and no solution. Spellings are found as
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


def mentions(said: list[str]) -> list[Mention]:
    """All spellings in a list of tokens, from left to right, the longest ones where they overlap."""
    folded = [token.casefold() for token in said]
    found, place = [], 0
    while place < len(said):
        end, entries = _longest(folded, place)
        while entries and not (kept := [entry for entry in entries if _counts(entry, said, folded, place, end)]):
            end, entries = _longest(folded[:end], place)  # a shorter spelling may count where this one does not
        if not entries:
            place += 1
            continue
        found += [Mention(entry.field, _value(entry, said[place : end + 1]), place, end) for entry in kept]
        place = end + 1
    return found


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
    return {name: list(dict.fromkeys(found)) for name, found in values.items()}


@cache
def _tree() -> dict:
    """The spellings by their tokens: a branch for each next token, the entries of a whole spelling under None."""
    root: dict = {}
    for entry in [*_named(), *_numbered()]:
        branch = root
        for token in tokens(entry.text.replace(SLOT, "{0-0}")):
            branch = branch.setdefault(SLOT if re.fullmatch(r"\{\d+-\d+\}", token) else token.casefold(), {})
        entries = branch.setdefault(None, [])
        if not any((known.field, known.value) == (entry.field, entry.value) for known in entries):
            entries.append(entry)
    return root


def _named() -> list[Entry]:
    return [
        Entry(name, value, spelling.text)
        for name, values in vocabulary().items()
        for value in values
        for spelling in spellings(name, value)
    ]


def _numbered() -> list[Entry]:
    entries = {}
    for name, marker in tables()["marker"].items():
        if "values" in marker:
            continue
        places = len(str(marker.get("step", 1)).partition(".")[2])
        for sample in SAMPLES:
            for spelling in spellings("biomarker", f"{name} {sample}{marker['unit']}"):
                number = next(found for found in re.findall(NUMBER, spelling.text) if found.replace(",", "").startswith("777"))
                text = spelling.text.replace(number, SLOT)
                factor = Decimal(number.replace(",", "")) / Decimal(sample)
                entries[text] = Entry("biomarker", f"{name} {SLOT}{marker['unit']}", text, factor, places)
    return list(entries.values())


def _longest(folded: list[str], place: int) -> tuple[int, list[Entry]]:
    """The last token of the longest spelling that begins at `place`, and what it stands for."""
    best: tuple[int, list[Entry]] = (place, [])
    branches = [(place, _tree())]
    while branches:
        here, branch = branches.pop()
        if None in branch and (here - 1 > best[0] or not best[1]):
            best = (here - 1, branch[None])
        if here < len(folded):
            steps = [folded[here]] + [SLOT] * bool(re.fullmatch(NUMBER, folded[here]))
            branches += [(here + 1, branch[step]) for step in steps if step in branch]
    return best


def _counts(entry: Entry, said: list[str], folded: list[str], first: int, last: int) -> bool:
    if entry.field == "stage" and entry.text == entry.value:
        return "stage" in folded[max(0, first - NEAR) : first]
    if not ABBREVIATION.fullmatch(entry.text):
        return True
    beside = said[max(0, first - 1) : first] + said[last + 1 : last + 2]
    return said[first] == entry.text and "-" not in beside


def _value(entry: Entry, said: list[str]) -> str:
    if entry.factor is None:
        return entry.value
    slots = [place for place, token in enumerate(tokens(entry.text.replace(SLOT, "{0-0}"))) if token == "{0-0}"]
    number = Decimal(said[slots[0]].replace(",", "")) / entry.factor
    return entry.value.replace(SLOT, str(float(number)) if entry.places else f"{number.normalize():f}")
