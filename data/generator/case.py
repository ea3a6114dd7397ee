"""A case: a patient and what a note is to say, before any of it is a sentence.

A case is a list of statements, each a kind of sentence and the facts that it states. A fact's status says whether it holds
for this patient's disease now (`asserted`); only such facts become labels, so the rules of LABELLING.md live in the statuses.
"""

from dataclasses import dataclass, field

from data import schema
from data.generator import distractors
from data.generator.draw import Draw
from data.generator.knowledge import tables
from data.generator.patient import draw_patient, is_surgery
from data.generator.spare import Unused
from data.generator.statement import Fact, Patient, Statement, facts

BENIGN, PLAIN = 0.026, 0.127  # shares of notes: without a cancer; without anything that is hard to read
RESPONSE_STATED = 0.86  # of the treated
# How long a note is, and how many distractors come with that.
LENGTHS = {"short": 15, "middle": 57, "long": 22, "very long": 6}
DENSITY = {"short": 0.42, "middle": 0.95, "long": 1.6, "very long": 3.0}
SCALARS = ("cancer_type", "stage", "response")

# How the diagnosis is told, in percent.
FIRST = {"diagnosis": 62, "diagnosis_later": 16, "diagnosis_corrected": 12, "diagnosis_after": 10}

# How often each response is the latest one, by how far the disease went and whether it was cut out.
RESPONSES = {
    "spread": {"partial response": 6, "stable disease": 5, "progressive disease": 5, "mixed response": 3, "complete response": 1},
    "resected": {"no evidence of disease": 4, "progressive disease": 3},
    "local": {"partial response": 3, "complete response": 4, "stable disease": 3, "no evidence of disease": 3, "progressive disease": 2},
}
GONE = ("complete response", "pathologic complete response", "no evidence of disease")  # then no lesion can have grown
# What may have come before it.
EARLIER = {
    "progressive disease": ["partial response", "stable disease", "complete response"],
    "partial response": ["stable disease", "progressive disease"],
    "complete response": ["partial response"],
    "stable disease": ["partial response", "progressive disease"],
    "mixed response": ["partial response", "stable disease"],
    "no evidence of disease": ["partial response"],
    "pathologic complete response": ["partial response"],
}


@dataclass(frozen=True)
class Case:
    patient: Patient
    statements: list[Statement] = field(default_factory=list)
    plain: bool = False


def label(case: Case) -> dict:
    """The right answer for the note of `case`: its asserted facts, each once, in the schema's order of fields."""
    asserted = [fact for statement in case.statements for slot in statement.facts.values() for fact in slot if fact.status == "asserted"]
    values_by_field = {name: list(dict.fromkeys(fact.value for fact in asserted if fact.field == name)) for name in schema.fields()}
    return {name: (values[0] if values else None) if name in SCALARS else values for name, values in values_by_field.items()}


def draw_case(draw: Draw, entities: str, short: bool = False) -> Case:
    """A patient with a cancer, or, now and then, without one; `entities` "known" or "all"."""
    density = DENSITY["short" if short else draw.weighted(LENGTHS)]
    if draw.chance(BENIGN):
        return _benign(density, entities, draw)
    plain = draw.chance(PLAIN)
    patient = draw_patient(draw, entities, plain)
    unused = Unused(patient, entities)
    statements = [
        *_diagnosis(patient, plain, unused, draw),
        *_molecular(patient, plain, draw),
        *_spread(patient),
        *_therapy(patient, plain, draw),
    ]
    if plain:
        return Case(patient, statements + _filler(patient, unused, draw), plain)
    return Case(patient, statements + _lesions(patient, statements, draw) + distractors.draw_all(patient, unused, density, draw))


def _diagnosis(patient: Patient, plain: bool, unused: Unused, draw: Draw) -> list[Statement]:
    name, stage = (
        {"cancer": facts("cancer_type", [patient.cancer.name])},
        {"stage": facts("stage", [patient.stage] if patient.stage else [])},
    )
    first = "diagnosis" if plain else draw.weighted(FIRST)
    if first == "diagnosis_after" and not unused.has_earlier():
        first = "diagnosis"
    if first in ("diagnosis_corrected", "diagnosis_after"):
        after, years = first == "diagnosis_after", draw.between(6, 19)
        other = unused.earlier(draw) if after else unused.confused(draw)
        status = "prior" if after else "superseded"
        name = {"old_cancer": facts("cancer_type", [other.name], status)} | name
    opened = Statement(first, name, {"years": str(years)} if "old_cancer" in name else {})
    if patient.stage is None:
        return [opened]
    old = _stage_before(patient)
    if old and not plain and draw.chance(0.42):
        kind = "restaged" if draw.chance(0.6) else "stage_corrected"
        return [opened, Statement(kind, {"old_stage": facts("stage", [draw.one(old)], "superseded")} | stage)]
    if first == "diagnosis" and draw.chance(0.6):
        return [Statement("diagnosis_staged", name | stage)]
    return [opened, Statement("stage", stage)]


def _stage_before(patient: Patient) -> list[str]:
    """The groups that may have been right, or been thought right, before the present one."""
    cancer, now = patient.cancer, patient.stage
    return cancer.stages[: cancer.stages.index(now)] if now in cancer.stages else cancer.stages


def _molecular(patient: Patient, plain: bool, draw: Draw) -> list[Statement]:
    gene, markers = {"gene": facts("gene_mutation", patient.genes)}, list(patient.markers)
    changed = []
    for value in patient.markers:
        before = distractors.marker_before(value, draw) if not changed and not plain and draw.chance(0.45) else None
        if before:
            markers.remove(value)
            old = facts("biomarker", [before], "superseded")
            changed = [Statement("marker_changed", {"old_marker": old, "marker": facts("biomarker", [value])})]
    marker = {"marker": facts("biomarker", markers)}
    if patient.genes and markers and draw.chance(0.4):
        return [Statement("molecular", gene | marker), *changed]
    return [*[Statement("gene", gene)] * bool(patient.genes), *[Statement("marker", marker)] * bool(markers), *changed]


def _spread(patient: Patient) -> list[Statement]:
    return [Statement("metastasis", {"site": facts("metastasis_site", patient.sites)})] if patient.sites else []


def _therapy(patient: Patient, plain: bool, draw: Draw) -> list[Statement]:
    lines = [facts("treatment", line) for line in patient.lines]
    if not lines:
        return [Statement("untreated")] if draw.chance(0.4) else []
    return [_treatment_statement(patient.lines, lines, draw)] + (_response(patient, plain, draw) if draw.chance(RESPONSE_STATED) else [])


def _treatment_statement(names: list[list[str]], lines: list[tuple[Fact, ...]], draw: Draw) -> Statement:
    if len(lines) == 3:
        return Statement("treated_three", {"first": lines[0], "second": lines[1], "treatment": lines[2]})
    if len(lines) == 2:
        adjuvant = is_surgery(names[0][0]) and draw.chance(0.7)
        return Statement("treated_adjuvant" if adjuvant else "treated_lines", {"first": lines[0], "treatment": lines[1]})
    kinds = {tables()["treatment"].get(item, {}).get("type") for item in names[0]}
    narrow = "treated_drug" if kinds <= {"drug", "regimen"} else "treated_procedure" if kinds == {"surgery"} else "treated"
    return Statement(draw.one(["treated", narrow]), {"treatment": lines[0]})


def _response(patient: Patient, plain: bool, draw: Draw) -> list[Statement]:
    resected = not patient.sites and any(is_surgery(line[0]) for line in patient.lines)
    last_resected = resected and len(patient.lines) > 1 and is_surgery(patient.lines[-1][0])
    if last_resected and draw.chance(0.55):  # drugs first, then the operation
        response_fact = facts("response", ["pathologic complete response"])
        described = not plain and draw.chance(0.3)
        return [
            Statement("response_described", {"described": response_fact})
            if described
            else Statement("response_pathologic", {"response": response_fact})
        ]
    now = draw.weighted(RESPONSES["spread" if patient.sites else "resected" if resected else "local"])
    response = {"response": facts("response", [now])}
    if (not resected or len(patient.lines) > 1) and not plain and draw.chance(0.46):
        old = {"old_response": facts("response", [draw.one(EARLIER[now])], "superseded")}
        return (
            [Statement("response_changed", old | response)]
            if draw.chance(0.6)
            else [Statement("response_early", old), _response_statement(now, draw)]
        )
    return [Statement("response", response)] if plain else [_response_statement(now, draw)]


def _response_statement(response: str, draw: Draw) -> Statement:
    """The response by name, or described."""
    if tables()["response"][response]["described"] and draw.chance(0.3):
        return Statement("response_described", {"described": facts("response", [response])})
    return Statement("response", {"response": facts("response", [response])})


def _lesions(patient: Patient, statements: list[Statement], draw: Draw) -> list[Statement]:
    """One of the known lesions on its own, beside the overall response."""
    responses = [fact for statement in statements for slot in statement.facts.values() for fact in slot if fact.field == "response"]
    overall = any(fact.status == "asserted" and fact.value not in GONE for fact in responses)
    sites = [site for site in patient.sites if tables()["site"][site]["adjectives"]]
    if not sites or not overall or not draw.chance(0.52):
        return []
    return [Statement("lesions", {"site": facts("metastasis_site", draw.some(sites, 1))})]


def _filler(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    """What even a plain note may go on about: no tagged phenomenon is among it, though it names organs and nodes."""
    kinds = [kind for kind in ("examined", "exam", "regional", "logistics", "opening", "closing", "examined") if draw.chance(0.4)]
    return [statement for kind in kinds for statement in distractors.MAKERS[kind](patient, unused, draw)]


def _benign(density: float, entities: str, draw: Draw) -> Case:
    patient = Patient(sex=draw.one(["woman", "man"]), age=draw.between(38, 81))
    finding = draw.one(tables()["benign"]["findings"][patient.sex])
    statements = [Statement("benign", words={"finding": finding}), Statement("benign_follow_up")]
    unused = Unused(patient, entities)
    distractor_kinds = [name for name in BESIDE_BENIGN if draw.chance(min(0.9, density * BESIDE_BENIGN[name] / 100))]
    return Case(
        patient, statements + [statement for name in distractor_kinds for statement in distractors.MAKERS[name](patient, unused, draw)]
    )


BESIDE_BENIGN = {"family": 70, "another_relative": 30, "prior": 30, "comorbidity": 80, "comorbidity_drug": 50, "exam": 50} | {
    "social": 50,
    "logistics": 50,
    "opening": 40,
}
