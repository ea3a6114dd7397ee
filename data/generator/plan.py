"""The plan of a note: its style, its sections under their headings, and which statement stands where."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from data.generator.case import Case
from data.generator.draw import Draw
from data.generator.statement import Statement

KINDS = {
    "opening": ("opening",),
    "identity": ("diagnosis", "diagnosis_staged", "diagnosis_corrected", "diagnosis_after", "benign"),
    "stage": ("stage", "restaged", "stage_corrected", "tnm", "grade"),
    "molecular": (
        (
            "diagnosis_later",
            "gene",
            "marker",
            "molecular",
            "marker_changed",
            "marker_void",
            "gene_negative",
            "gene_absent",
            "gene_uncertain",
            "gene_vus",
            "pending",
        )
    ),
    "imaging": (
        (
            "metastasis",
            "metastasis_negative",
            "metastasis_hedged",
            "metastasis_ruled_out",
            "metastasis_pending",
            "regional",
            "invasion",
            "examined",
        )
    ),
    "therapy": (
        (
            "treated",
            "treated_drug",
            "treated_procedure",
            "treated_adjuvant",
            "treated_lines",
            "treated_three",
            "untreated",
            "toxicity",
            "supportive",
        )
    ),
    "outcome": ("response", "response_changed", "response_early", "response_described", "response_pathologic", "lesions"),
    "past": ("comorbidity", "comorbidity_drug", "prior", "prior_treated", "prior_staged"),
    "family": ("family", "family_gene", "family_treated", "family_staged"),
    "general": ("performance", "exam", "social"),
    "plan": (
        ("planned", "declined", "considered", "stopped_before", "response_expected", "goal", "benign_follow_up", "logistics", "closing")
    ),
}
TOPIC = {kind: topic for topic, kinds in KINDS.items() for kind in kinds}
MOVABLE = ("declined", "considered", "stopped_before", "planned")  # told with the therapy as often as with the plan
ASIDE_FIRST = 0.35  # of the notes with headings tell what is someone else's or long past before the disease itself
FIRST = KINDS["opening"] + KINDS["identity"]
# What is someone else's or long past ends a paragraph: after "the mother took imatinib", "partial response" would be the mother's.
LAST = ("prior", "prior_treated", "prior_staged", *KINDS["family"])


@dataclass(frozen=True)
class Section:
    heading: str
    form: str  # prose or terse
    layout: str
    statements: list[Statement]


@dataclass(frozen=True)
class Plan:
    style: str
    title: str
    between: str  # what stands between two sections
    sections: list[Section] = field(default_factory=list)


@cache
def styles() -> dict:
    """The table of styles, titles and headings, as it stands in its file."""
    return tomllib.loads((Path(__file__).parent / "styles.toml").read_text(encoding="utf-8"))


@cache
def shares() -> dict[str, int]:
    """How often each style is drawn."""
    return {name: table["share"] for name, table in styles().items() if "share" in table}


def arrange(case: Case, pool: str, draw: Draw) -> Plan:
    """Where each statement of `case` stands in a note of some style, with the headings of `pool`."""
    name = draw.weighted(shares())
    style = styles()[name]
    title = _title(name, pool, draw) if draw.chance(style["title"] / 100) else ""
    headed, layout = draw.chance(style["headed"] / 100), draw.one(style["layout"])
    topics = _by_topic(case, draw)
    sections = []
    order = _order(style["order"], draw)
    if headed and draw.chance(ASIDE_FIRST):
        order = sorted(order, key=lambda topic: not topic.startswith(("past", "family")))
    for topic in order:
        statements = sorted((statement for part in topic.split("+") for statement in topics.get(part, [])), key=_rank)
        if statements:
            heading = draw.one(styles()["headings"][pool][topic.split("+")[0]]) if headed else ""
            form = draw.one(["prose", "terse"]) if style["form"] == "mixed" else style["form"]
            sections.append(Section(heading, form, _layout(layout, form), statements))
    if "opening" in topics:
        disease_sections = [section for section in sections if TOPIC[section.statements[0].kind] not in ("past", "family")]
        disease_sections[0].statements[:0] = topics["opening"]
    between = draw.one([" ", "\n", "\n\n"]) if not headed else draw.one(["\n", "\n\n"])
    return Plan(name, title, between, sections)


def _layout(layout: str, form: str) -> str:
    if form == "prose":
        return layout if layout == "numbered" else "paragraph"
    return "stops" if layout == "paragraph" else layout


def _title(name: str, pool: str, draw: Draw) -> str:
    day, month, year = draw.between(1, 28), draw.between(1, 12), draw.between(2009, 2025)
    date = draw.one([f"{month:02}/{day:02}/{year}", f"{year}-{month:02}-{day:02}", f"{day}.{month}.{year}"])
    return draw.one(styles()["titles"][pool][name]).format(date=date)


def _by_topic(case: Case, draw: Draw) -> dict[str, list[Statement]]:
    topics: dict[str, list[Statement]] = {}
    for statement in draw.some(case.statements, len(case.statements)):
        topic = "therapy" if statement.kind in MOVABLE and draw.chance(0.4) else TOPIC[statement.kind]
        topics.setdefault(topic, []).append(statement)
    return topics


def _order(order: list[str], draw: Draw) -> list[str]:
    """The style's sections, those marked with ~ in any order among themselves."""
    loose = draw.some([topic for topic in order if topic.startswith("~")], len(order))
    return [(loose.pop() if topic.startswith("~") else topic).removeprefix("~") for topic in order]


def _rank(statement: Statement) -> int:
    """What comes first and last within a section: a response follows its treatment, a changed marker the other markers."""
    if statement.kind in LAST:
        return 5
    later = {"therapy": 3, "outcome": 4}.get(TOPIC[statement.kind], 2 if statement.kind == "marker_changed" else 1)
    return 0 if statement.kind in FIRST and later == 1 else later
