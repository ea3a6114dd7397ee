"""The ways in which a note may write a value, each with what makes it hard to read."""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from data.generator.knowledge import cancers, marker_name, tables

ARABIC = {"0": "0", "I": "1", "II": "2", "III": "3", "IV": "4"}
LETTERS = {"A": "Ala", "R": "Arg", "N": "Asn", "D": "Asp", "C": "Cys", "Q": "Gln", "E": "Glu", "G": "Gly", "H": "His", "I": "Ile"}
LETTERS |= {"L": "Leu", "K": "Lys", "M": "Met", "F": "Phe", "P": "Pro", "S": "Ser", "T": "Thr", "W": "Trp", "Y": "Tyr", "V": "Val"}


@dataclass(frozen=True)
class Spelling:
    text: str
    kind: str = "plain"  # or alias, abbreviation, brand, hgvs, unit, misspelling, adjective, detail, described
    pattern: bool = False  # {35-60} in the text stands for a whole number of that range


@cache
def spellings(name: str, value: str) -> tuple[Spelling, ...]:
    """The ways in which a note may write `value` of the field `name`, the canonical one first."""
    options = [Spelling(value), *_OTHERS[name](value)]
    return tuple({(spelling.text, spelling.kind): spelling for spelling in options}.values())


def means(name: str, value: str, surface: str) -> bool:
    """Whether `surface`, as it stands in a note, is a spelling of `value`."""
    texts, patterns = _known(name, value)
    written = plain(surface)
    return written in texts or any(pattern.fullmatch(written) for pattern in patterns)


def plain(surface: str) -> str:
    """`surface` without what noise may do to it: capitals, odd hyphens, line breaks."""
    return " ".join(surface.replace("\u2011", "-").split()).casefold()


@cache
def _known(name: str, value: str) -> tuple[frozenset[str], list[re.Pattern]]:
    options = spellings(name, value)
    patterns = [re.compile(_pattern(spelling)) for spelling in options if spelling.pattern]
    return frozenset(plain(spelling.text) for spelling in options if not spelling.pattern), patterns


def _pattern(spelling: Spelling) -> str:
    return re.sub(r"\\\{\d+\\-\d+\\\}", r"\\d+", re.escape(plain(spelling.text)))


def _kind(text: str) -> str:
    if re.search(r"\b[pc]\.", text):
        return "hgvs"
    return "abbreviation" if re.search(r"[A-Z0-9][A-Z]|[a-z][A-Z]", text) else "alias"


def _also(texts: list[str], kind: str = "") -> list[Spelling]:
    return [Spelling(text, kind or _kind(text)) for text in texts]


def stage_value(surface: str) -> str:
    """The group that a surface such as "stage 3b" names: IIIB."""
    number, letter = re.fullmatch(r"stage ([IV]+|[0-4])([A-C]?)", surface, re.IGNORECASE).groups()
    return {arabic: roman for roman, arabic in ARABIC.items()}.get(number, number) + letter.upper()


def _stage(value: str) -> list[Spelling]:
    roman, letter = re.fullmatch(r"(0|IV|I{1,3})([ABC]?)", value).groups()
    others = [f"stage {value}", f"Stage {value}", f"stage {ARABIC[roman]}{letter}", f"stage {ARABIC[roman]}{letter.lower()}"]
    return _also(others + [f"Stage {roman}-{letter}"] * bool(letter), "alias")


def _gene(value: str) -> list[Spelling]:
    point = re.fullmatch(r"(\w+) ([A-Z])(\d+)([A-Z])", value)
    forms = []
    if point:
        gene, before, codon, after = point.groups()
        forms = [f"{gene} p.{before}{codon}{after}", f"{gene} p.{LETTERS[before]}{codon}{LETTERS[after]}"]
        forms += [f"{before}{codon}{after} mutation in {gene}", f"{gene} {before}{codon}{after} mutation"]
    gene = value.split()[0]
    others = forms + tables()["gene"].get(value, {}).get("also", [])
    return [Spelling(text, "hgvs" if re.search(r"\b[pc]\.", text) else "alias") for text in others if text != gene]


def _marker(value: str) -> list[Spelling]:
    name = marker_name(value)
    marker = tables()["marker"][name]
    if "values" in marker:
        return _also(marker["values"][value])
    number = value.removeprefix(f"{name} ").removesuffix(marker["unit"])
    amounts = {f"{number}{marker['unit']}": "alias"}
    amounts |= {_amount(number, factor) + unit: "unit" for unit, factor in marker.get("units", {}).items()}
    if marker["unit"] == "%":
        amounts |= {f"{number} %": "unit", f"{number} percent": "unit"}
    elif "." not in number and len(number) < 4:
        amounts |= {f"{number}.0{marker['unit']}": "unit"}
    elif len(number) > 3 and "." not in number:
        amounts |= {f"{int(number):,}{marker['unit']}": "unit"}
    texts = {f"{name} {amount}": kind for amount, kind in amounts.items()}
    texts |= {text.format(value=amount): kind for text in marker["spellings"] for amount, kind in amounts.items()}
    return [Spelling(text, kind) for text, kind in texts.items()]


def _amount(number: str, factor: float) -> str:
    return f"{(Decimal(number) * Decimal(str(factor))).normalize():f}"


def _treatment(value: str) -> list[Spelling]:
    table = tables()["treatment"].get(value, {})
    brand = [
        Spelling(text, "brand" if re.fullmatch(r"[A-Z][a-z]+( [A-Za-z]+)?", text) and table["type"] == "drug" else _kind(text))
        for text in table.get("also", [])
    ]
    return brand + _also(table.get("misspelled", []), "misspelling")


def _response(value: str) -> list[Spelling]:
    table = tables()["response"][value]
    return _also(table["also"]) + [Spelling(text, "described", "{" in text) for text in table["described"]]


def _site(value: str) -> list[Spelling]:
    table = tables()["site"][value]
    return _also(table["also"]) + _also(table["adjectives"], "adjective") + _also(table["details"], "detail")


_OTHERS = {
    "cancer_type": lambda value: _also(cancers("all")[value].also),
    "stage": _stage,
    "gene_mutation": _gene,
    "biomarker": _marker,
    "treatment": _treatment,
    "response": _response,
    "metastasis_site": _site,
}
