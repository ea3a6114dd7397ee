"""The note that says a case, with a record of where each fact stands in it."""

import re
from dataclasses import dataclass, field, replace
from string import Formatter

from data.generator.case import Case
from data.generator.draw import Draw
from data.generator.frames import Frame, frames
from data.generator.knowledge import tables
from data.generator.plan import LAST, Plan, Section
from data.generator.spelling import Spelling, spellings, stage_value
from data.generator.statement import Fact, Patient, Statement

MARKS = {"bullets": "- ", "stars": "* "}
MISSPELLED = 0.05  # of the values that have a misspelling
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


@dataclass(frozen=True)
class Part:
    """A piece of a note: plain text, or a fact in one of its spellings."""

    text: str
    fact: Fact | None = None
    kind: str = ""  # of the spelling; or "heading"


@dataclass
class Note:
    style: str
    parts: list[Part] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)

    def render(self) -> tuple[str, list[list]]:
        """The text, and of every fact in it: field, value, status, start and end."""
        text, evidence = "", []
        for part in self.parts:
            start, text = len(text), text + part.text
            if part.fact:
                evidence.append([part.fact.field, part.fact.value, part.fact.status, start, len(text)])
        return text, evidence


def write(case: Case, plan: Plan, pool: str, draw: Draw) -> Note:
    """`case` as `plan` arranges it, in sentences of `pool` ("train" or "held_out")."""
    note = Note(plan.style)
    if plan.title:
        note.parts.append(Part(plan.title + "\n", kind="heading"))
    for number, section in enumerate(plan.sections):
        if number:
            note.parts.append(Part(_between(plan, plan.sections[number - 1])))
        _section(section, case, pool, note, draw)
    return note


def _between(plan: Plan, before: Section) -> str:
    """What separates a section from the one before it: never on the same line after a list or after what is someone else's."""
    closed = before.layout in ("paragraph", "semicolons", "stops") and before.statements[-1].kind not in LAST
    return plan.between if closed or plan.between != " " else "\n"


def _section(section: Section, case: Case, pool: str, note: Note, draw: Draw) -> None:
    listed = section.layout in ("bullets", "stars", "numbered", "lines")
    if section.heading:
        note.parts.append(Part(section.heading + (":\n" if listed else ": "), kind="heading"))
    for number, statement in enumerate(section.statements):
        mark = f"{number + 1}. " if section.layout == "numbered" else MARKS.get(section.layout, "")
        gap = ("\n" if listed else {"semicolons": "; ", "stops": ". "}.get(section.layout, " ")) if number else ""
        if gap + mark:
            note.parts.append(Part(gap + mark))
        note.parts += _capital(_sentence(statement, section, case, pool, note, draw))
    if section.layout in ("semicolons", "stops"):
        note.parts.append(Part("."))


def _sentence(statement: Statement, section: Section, case: Case, pool: str, note: Note, draw: Draw) -> list[Part]:
    choices = [frame for frame in frames(statement.kind, pool, section.form) if _can_say(frame, statement)]
    frame = draw.one([frame for frame in choices if frame.id not in note.frames] or choices)
    note.frames.append(frame.id)
    parts: list[Part] = []
    for literal, slot, _, _ in Formatter().parse(frame.fill_choices(draw)):
        if literal:
            parts.append(Part(literal))
        if slot:
            slot_parts = _slot(slot, statement, case, draw)
            parts += _capital(slot_parts) if literal.endswith((". ", "? ")) else slot_parts
    return parts


def _can_say(frame: Frame, statement: Statement) -> bool:
    """Whether every fact of the statement that the frame names by an adjective has one."""
    sites = [fact.value for fact in statement.facts.get("site", ())]
    return "adjective" not in frame.slots or all(tables()["site"][site]["adjectives"] for site in sites)


def _slot(slot: str, statement: Statement, case: Case, draw: Draw) -> list[Part]:
    name = {"adjective": "site"}.get(slot, slot)
    if name in statement.facts:
        return _list(statement.facts[name], slot, case.plain, draw)
    words = statement.words | _person(case.patient)
    if slot == "comorbidity":
        return _illness(words[slot])
    if slot in words:
        return [Part(words[slot])]
    return [Part(_drawn(slot, draw))]


def _illness(name: str) -> list[Part]:
    """The name of another disease, whose stage is no label."""
    match = re.search(r"stage ([IV]+|[0-4])[A-Ca-c]?\b", name, re.IGNORECASE)
    if not match:
        return [Part(name)]
    stage = Part(match[0], Fact("stage", stage_value(match[0]), "comorbidity"), "alias")
    return [part for part in (Part(name[: match.start()]), stage, Part(name[match.end() :])) if part.text]


def _person(patient: Patient) -> dict[str, str]:
    article = "an" if patient.age in (18, *range(80, 90)) else "a"
    woman = patient.sex == "woman"
    return {
        "patient": f"{article} {patient.age}-year-old {patient.sex}",
        "code": f"{patient.age}{'F' if woman else 'M'}",
        "they": "she" if woman else "he",
        "them": "her" if woman else "him",
        "their": "her" if woman else "his",
    }


def _drawn(slot: str, draw: Draw) -> str:
    """A word for a slot that is about nothing in the case."""
    if slot in tables()["words"]:
        return draw.one(tables()["words"][slot])
    numbers = {"size": (3, 28), "years": (3, 20), "ecog": (0, 2), "weeks": (2, 16)}
    return draw.one(MONTHS) if slot == "month" else str(draw.between(*numbers[slot]))


def _list(facts: tuple[Fact, ...], slot: str, plain: bool, draw: Draw) -> list[Part]:
    parts: list[Part] = []
    joint = _joint(facts[0], draw)
    for number, fact in enumerate(facts):
        if number:
            parts.append(Part(joint if number == len(facts) - 1 else ", "))
        spelling = _spelling(fact, slot, plain, draw)
        parts.append(Part(_filled(spelling, draw), fact, spelling.kind))
    return parts


def _joint(fact: Fact, draw: Draw) -> str:
    if fact.status == "negated":
        return " or "
    return draw.one([" and ", " and ", " plus "]) if fact.field == "treatment" else " and "


def _spelling(fact: Fact, slot: str, plain: bool, draw: Draw) -> Spelling:
    """A spelling that fits the slot: each sort of spelling as likely as the others, the canonical one twice as likely."""
    options = [spelling for spelling in spellings(fact.field, fact.value) if (spelling.kind == "described") == (slot == "described")]
    if fact.field == "metastasis_site":
        options = [spelling for spelling in options if (spelling.kind == "adjective") == (slot == "adjective")]
    if fact.field == "stage":  # "IIIA" alone reads badly in a sentence
        return options[1] if plain or draw.chance(0.5) else draw.one(options[2:])
    sorts: dict[str, list[Spelling]] = {}
    for spelling in options:
        sorts.setdefault(spelling.kind, []).append(spelling)
    wrong = sorts.pop("misspelling", [])
    if wrong and not plain and draw.chance(MISSPELLED):
        return draw.one(wrong)
    if plain:
        return options[0]
    return draw.one(sorts[draw.weighted({kind: {"plain": 2, "unit": 3}.get(kind, 1) for kind in sorts})])


def _filled(spelling: Spelling, draw: Draw) -> str:
    if not spelling.pattern:
        return spelling.text
    return re.sub(r"\{(\d+)-(\d+)\}", lambda span: str(draw.between(int(span[1]), int(span[2]))), spelling.text)


def _capital(parts: list[Part]) -> list[Part]:
    """`parts` with a capital first letter, unless it is a symbol whose letters mean something: pCR, p16, c.35G>A."""
    first = parts[0]
    if re.match(r"[a-z]([A-Z0-9.]|-?[A-Z])", first.text) or re.match(r"[a-z]{1,2}[A-Z]", first.text):
        return parts
    return [replace(first, text=first.text[:1].upper() + first.text[1:]), *parts[1:]]
