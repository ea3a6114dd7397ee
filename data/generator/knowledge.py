"""What the generator knows: cancers with what goes with them, and the tables of values, from the files in `knowledge/`."""

import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "knowledge"


@dataclass(frozen=True)
class Cancer:
    """One cancer and what plausibly goes with it; `knowledge/cancers.toml` explains the fields."""

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
    nodes: list[str] = field(default_factory=list)
    invades: list[str] = field(default_factory=list)
    panels: list[list[str]] = field(default_factory=list)
    targeted: dict[str, list[list[str]]] = field(default_factory=dict)
    grades: list[str] = field(default_factory=list)
    tnm: list[list[str]] = field(default_factory=list)
    sexes: list[str] = field(default_factory=lambda: ["woman", "man"])
    ages: list[int] = field(default_factory=lambda: [41, 84])
    neoadjuvant: bool = False
    held_out: bool = False
    weight: int = 4

    def without(self, unknown: set[str]) -> "Cancer":
        """This cancer with no value of `unknown` in any of its lists."""
        lists = {"genes": self.genes, "markers": self.markers, "local": self.local, "adjuvant": self.adjuvant}
        lists = {name: [value for value in values if value not in unknown] for name, values in lists.items()}
        targeted = {finding: _lines(lines, unknown) for finding, lines in self.targeted.items() if finding not in unknown}
        return replace(self, **lists, systemic=_lines(self.systemic, unknown), targeted=targeted)


def _lines(lines: list[list[str]], unknown: set[str]) -> list[list[str]]:
    return [line for line in lines if not set(line) & unknown]


@cache
def tables() -> dict:
    """The knowledge base as it stands in its files: their tables side by side, those of one name merged."""
    merged: dict = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
            merged[name] = merged.get(name, {}) | table if isinstance(table, dict) else table
    return merged


@cache
def cancers(entities: str) -> dict[str, Cancer]:
    """Every cancer by name, with `entities` "all", or "known": those that training notes may name, with what they may name."""
    everything = {table["name"]: Cancer(**table) for table in tables()["cancer"]}
    if entities == "all":
        return everything
    return {name: cancer.without(held_out()) for name, cancer in everything.items() if not cancer.held_out}


@cache
def held_out() -> frozenset[str]:
    """The values that no training note names: some alterations, treatments and cancers."""
    values = [value for name in ("gene", "treatment") for value, table in tables()[name].items() if table.get("held_out")]
    return frozenset(values + [table["name"] for table in tables()["cancer"] if table.get("held_out")])


def marker_name(value: str) -> str:
    """The marker that `value` is a value of: MSI for "MSS"."""
    markers = tables()["marker"]
    with_value = [name for name, marker in markers.items() if value in marker.get("values", {})]
    return with_value[0] if with_value else max((name for name in markers if value.startswith(f"{name} ")), key=len)
