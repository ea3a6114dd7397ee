"""The note that says a case, with a record of where each fact stands in it."""

from dataclasses import dataclass, field
from string import Formatter

from data.generator.case import Case
from data.generator.draw import Draw
from data.generator.knowledge import frames, spellings
from data.generator.statement import Fact, Patient, Statement

# Sentences on one topic stay together. What is someone else's or long past comes first or last: after "the mother took
# imatinib", "partial response" would be the mother's.
TOPICS = {
    "molecular": ("gene", "marker", "molecular", "gene_negative", "pending"),
    "spread": ("metastasis", "metastasis_negative", "metastasis_hedged", "regional"),
    "therapy": (
        "treated",
        "treated_lines",
        "untreated",
        "response",
        "response_changed",
        "response_pathologic",
        "planned",
        "declined",
        "goal",
    ),
    "aside": ("grade", "comorbidity"),
}
OPENING = ("diagnosis", "diagnosis_staged", "benign", "benign_follow_up", "stage", "restaged")
OTHERS = ("family", "family_gene", "family_treated", "prior", "prior_treated")
TEST_NAMES_ONLY = ("gene_negative",)  # their facts are bare gene names, which have one spelling


@dataclass
class Note:
    text: str = ""
    evidence: list[dict] = field(default_factory=list)  # field, value, status, start, end of every fact in the text
    frames: list[str] = field(default_factory=list)


def write(case: Case, pool: str, draw: Draw) -> Note:
    """`case` in sentences of `pool` ("train" or "held_out")."""
    note = Note()
    for statement in _order(case.statements, draw):
        choices = frames()[statement.kind][pool]
        number = draw.below(len(choices))
        note.frames.append(f"{statement.kind}.{pool}.{number}")
        note.text += " " if note.text else ""
        _say(choices[number], statement, case.patient, note, draw)
    return note


def _order(statements: list[Statement], draw: Draw) -> list[Statement]:
    topics = draw.some(list(TOPICS), len(TOPICS))
    own = [*OPENING, *(kind for topic in topics for kind in _inside(topic, draw))]
    others = draw.some(list(OTHERS), len(OTHERS))
    order = others + own if draw.chance(0.4) else own + others
    return sorted(statements, key=lambda statement: order.index(statement.kind))


def _inside(topic: str, draw: Draw) -> list[str]:
    kinds = list(TOPICS[topic])
    return kinds if topic == "therapy" else draw.some(kinds, len(kinds))  # a response follows its treatment


def _say(frame: str, statement: Statement, patient: Patient, note: Note, draw: Draw) -> None:
    begin = len(note.text)
    for literal, slot, _, _ in Formatter().parse(frame):
        note.text += literal
        if slot in _words(statement, patient):
            note.text += _words(statement, patient)[slot]
        elif slot:
            _list(statement.facts["site" if slot == "adjective" else slot], slot, statement.kind, note, draw)
    note.text = note.text[:begin] + note.text[begin].upper() + note.text[begin + 1 :]


def _words(statement: Statement, patient: Patient) -> dict[str, str]:
    article = "an" if patient.age in (18, *range(80, 90)) else "a"
    return {
        "patient": f"{article} {patient.age}-year-old {patient.sex}",
        "code": f"{patient.age}{'F' if patient.sex == 'woman' else 'M'}",
        "their": "her" if patient.sex == "woman" else "his",
    } | statement.words


def _list(facts: tuple[Fact, ...], slot: str, kind: str, note: Note, draw: Draw) -> None:
    joint = _joint(facts[0], draw)
    for number, fact in enumerate(facts):
        if number:
            note.text += joint if number == len(facts) - 1 else ", "
        surface = _surface(fact, slot, kind, draw)
        start, note.text = len(note.text), note.text + surface
        note.evidence.append({"field": fact.field, "value": fact.value, "status": fact.status, "start": start, "end": len(note.text)})


def _joint(fact: Fact, draw: Draw) -> str:
    if fact.status == "negated":
        return "/" if fact.field == "gene_mutation" else " or "
    return draw.one([" and ", " plus "]) if fact.field == "treatment" else " and "


def _surface(fact: Fact, slot: str, kind: str, draw: Draw) -> str:
    if kind in TEST_NAMES_ONLY or slot == "site":
        return fact.value
    canonical, *others = spellings(fact.field, fact.value)
    if slot == "adjective":
        return others[0]
    if fact.field == "stage":  # "IIIA" alone reads badly in a sentence
        return draw.weighted({others[0]: 7, others[1]: 1, others[2]: 2})
    return canonical if not others or draw.chance(0.6) else draw.one(others)
