"""What the generator knows: cancers with what goes with them, and the spellings of every value."""

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Cancer:
    """One cancer and what plausibly goes with it; `knowledge.toml` explains the fields."""

    name: str
    also: list[str]
    genes: list[str]
    tests: list[str]
    markers: list[str]
    systemic: list[list[str]]
    local: list[str] = field(default_factory=list)
    adjuvant: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    distant: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    panels: list[list[str]] = field(default_factory=list)
    targeted: dict[str, list[list[str]]] = field(default_factory=dict)
    grades: list[str] = field(default_factory=list)
    sexes: list[str] = field(default_factory=lambda: ["woman", "man"])
    ages: list[int] = field(default_factory=lambda: [41, 84])
    neoadjuvant: bool = False


@cache
def tables() -> dict:
    """The knowledge base as it stands in its file."""
    return tomllib.loads((FOLDER / "knowledge.toml").read_text(encoding="utf-8"))


@cache
def frames() -> dict[str, dict[str, list[str]]]:
    """By kind of statement: the sentences for training (`train`) and for validation (`held_out`)."""
    return tomllib.loads((FOLDER / "frames.toml").read_text(encoding="utf-8"))


@cache
def cancers() -> dict[str, Cancer]:
    """Every cancer, by name."""
    return {table["name"]: Cancer(**table) for table in tables()["cancer"]}


def spellings(name: str, value: str) -> list[str]:
    """The ways in which a note may write `value` of the field `name`, the canonical one first."""
    return [value, *_OTHERS[name](value)]


def marker_name(value: str) -> str:
    """The marker that `value` is a value of: MSI for "MSS"."""
    return next(name for name, marker in tables()["marker"].items() if value in marker.get("values", {}) or value.startswith(f"{name} "))


def _stage(value: str) -> list[str]:
    roman, letter = re.fullmatch(r"(IV|I{1,3})([ABC]?)", value).groups()
    arabic = {"I": "1", "II": "2", "III": "3", "IV": "4"}[roman]
    return [f"stage {value}", f"Stage {value}", f"stage {arabic}{letter}"]


def _gene(value: str) -> list[str]:
    if value in tables()["gene"]:
        return tables()["gene"][value]
    point = re.fullmatch(r"(\w+) ([A-Z]\d+[A-Z])", value)
    return [f"{point[1]} p.{point[2]}", f"{point[2]} mutation in {point[1]}"] if point else []


def _marker(value: str) -> list[str]:
    name = marker_name(value)
    marker = tables()["marker"][name]
    if "values" in marker:
        return marker["values"][value]
    return [spelling.format(value=value.removeprefix(f"{name} ")) for spelling in marker["spellings"]]


_OTHERS = {
    "cancer_type": lambda value: cancers()[value].also,
    "stage": _stage,
    "gene_mutation": _gene,
    "biomarker": _marker,
    "treatment": lambda value: tables()["treatment"].get(value, []),
    "response": lambda value: tables()["response"][value],
    "metastasis_site": lambda value: tables()["site"][value],
}
