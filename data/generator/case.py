"""A made-up patient: what is true, what is not, and whose it is, before any of it is a sentence.

A case is a list of statements, each a kind of sentence and the facts that it states. A fact's status says whether it holds
for this patient's disease now (`asserted`); only such facts become labels, so the rules of LABELLING.md live in the statuses.
"""

from dataclasses import dataclass, field

from data import schema
from data.generator import distractors
from data.generator.draw import Draw
from data.generator.knowledge import Cancer, cancers, tables
from data.generator.statement import Fact, Patient, Statement

# What a share of notes says nothing about, so that empty is an answer in every field.
STAGE_STATED, GENE_STATED, MARKER_STATED, TREATED, RESPONSE_STATED, DISTANT, BENIGN = 0.80, 0.65, 0.68, 0.86, 0.76, 0.50, 0.04


# How often each response is the latest one, by how far the disease went and whether it was cut out.
RESPONSES = {
    "spread": {"partial response": 6, "stable disease": 5, "progressive disease": 4, "mixed response": 3},
    "resected": {"no evidence of disease": 6, "progressive disease": 1},
    "local": {"partial response": 3, "complete response": 4, "stable disease": 3, "no evidence of disease": 3, "progressive disease": 2},
}
# What may have come before it.
EARLIER = {
    "progressive disease": ["partial response", "stable disease"],
    "partial response": ["stable disease"],
    "complete response": ["partial response"],
}


@dataclass(frozen=True)
class Case:
    patient: Patient
    statements: list[Statement] = field(default_factory=list)


def label(case: Case) -> dict:
    """The right answer for the note of `case`: its asserted facts, in the schema's order of fields."""
    facts = [fact for statement in case.statements for slot in statement.facts.values() for fact in slot if fact.status == "asserted"]
    found = {name: [fact.value for fact in facts if fact.field == name] for name in schema.fields()}
    scalars = {"cancer_type", "stage", "response"}
    return {name: (values[0] if values else None) if name in scalars else values for name, values in found.items()}


def draw_case(draw: Draw) -> Case:
    """A patient with a cancer, or, now and then, without one."""
    if draw.chance(BENIGN):
        return _benign(draw)
    patient = _patient(draw)
    own = [*_diagnosis(patient, draw), *_molecular(patient, draw), *_spread(patient), *_therapy(patient, draw)]
    others = distractors.draw_some(patient, 2 if len(own) < 4 else draw.weighted({0: 1, 1: 4, 2: 5}), draw)
    return Case(patient, own + others)


def _patient(draw: Draw) -> Patient:
    cancer = draw.one(list(cancers().values()))
    distant = bool(cancer.sites) and draw.chance(DISTANT)
    groups = cancer.distant if distant else cancer.stages
    patient = Patient(
        sex=draw.one(cancer.sexes),
        age=draw.between(*cancer.ages),
        cancer=cancer,
        stage=draw.one(groups) if groups and draw.chance(STAGE_STATED) else None,
        genes=_genes(cancer, draw) if draw.chance(GENE_STATED) else [],
        markers=_markers(cancer, draw) if draw.chance(MARKER_STATED) else [],
        sites=draw.some(cancer.sites, draw.weighted({1: 5, 2: 4, 3: 1})) if distant else [],
    )
    return patient.with_lines(_lines(patient, draw) if draw.chance(TREATED) else [])


def _genes(cancer: Cancer, draw: Draw) -> list[str]:
    driver = draw.one(cancer.genes)
    others = [gene for gene in tables()["co_alterations"] if gene.split()[0] != driver.split()[0]]
    return [driver, *draw.some(others, draw.weighted({0: 5, 1: 1}))]


def _markers(cancer: Cancer, draw: Draw) -> list[str]:
    panel = draw.one(cancer.panels) if cancer.panels else []
    names = draw.some(cancer.markers, draw.weighted({0: 3, 1: 2}) if panel else draw.weighted({1: 3, 2: 2}))
    return panel + [_marker_value(name, draw) for name in names]


def _marker_value(name: str, draw: Draw) -> str:
    marker = tables()["marker"][name]
    if "values" in marker:
        return draw.one(list(marker["values"]))
    return f"{name} {draw.between(marker['low'], marker['high'], marker.get('step', 1))}{marker['unit']}"


def _lines(patient: Patient, draw: Draw) -> list[list[str]]:
    """What the patient received, line by line."""
    if patient.sites:
        return _lines_for_spread(patient, draw)
    cancer, drugs = patient.cancer, draw.one(patient.options())
    orders = []
    if cancer.local:
        local = [draw.one(cancer.local)]
        orders += [[local], [local], [local, drugs]] + [[local, [item]] for item in cancer.adjuvant]
        orders += [[drugs, [item]] for item in _surgery(cancer) if cancer.neoadjuvant]
    if not cancer.local or patient.stage is None or patient.stage.startswith("III"):
        orders += [[drugs]] + [[drugs, [item]] for item in cancer.adjuvant if not cancer.local]
    return draw.one(orders)


def _lines_for_spread(patient: Patient, draw: Draw) -> list[list[str]]:
    first = draw.one(patient.options())
    others = [line for line in patient.options() if not set(line) & set(first)]
    if "brain" in patient.sites and draw.chance(0.4):
        return [first, ["stereotactic radiosurgery"]]
    return [first, draw.one(others)] if others and draw.chance(0.35) else [first]


def _surgery(cancer: Cancer) -> list[str]:
    return [item for item in cancer.local if item != "chemoradiotherapy"]


def _diagnosis(patient: Patient, draw: Draw) -> list[Statement]:
    cancer, now = patient.cancer, patient.stage
    name = {"cancer": (Fact("cancer_type", cancer.name),)}
    if now is None:
        return [Statement("diagnosis", name)]
    stage = {"stage": (Fact("stage", now),)}
    earlier = cancer.stages if patient.sites else cancer.stages[: cancer.stages.index(now)]
    if earlier and draw.chance(0.25):
        old = {"old_stage": (Fact("stage", draw.one(earlier), "superseded"),)}
        return [Statement("diagnosis", name), Statement("restaged", old | stage)]
    if draw.chance(0.55):
        return [Statement("diagnosis_staged", name | stage)]
    return [Statement("diagnosis", name), Statement("stage", stage)]


def _molecular(patient: Patient, draw: Draw) -> list[Statement]:
    gene = {"gene": tuple(Fact("gene_mutation", value) for value in patient.genes)}
    marker = {"marker": tuple(Fact("biomarker", value) for value in patient.markers)}
    if patient.genes and patient.markers and draw.chance(0.4):
        return [Statement("molecular", gene | marker)]
    statements = [Statement("gene", gene)] * bool(patient.genes) + [Statement("marker", marker)] * bool(patient.markers)
    return draw.some(statements, 2)


def _spread(patient: Patient) -> list[Statement]:
    sites = tuple(Fact("metastasis_site", value) for value in patient.sites)
    return [Statement("metastasis", {"site": sites})] if sites else []


def _therapy(patient: Patient, draw: Draw) -> list[Statement]:
    lines = [tuple(Fact("treatment", item) for item in line) for line in patient.lines]
    if not lines:
        return [Statement("untreated")] if draw.chance(0.4) else []
    if len(lines) == 1:
        given = Statement("treated", {"treatment": lines[0]})
    else:
        given = Statement("treated_lines", {"first": lines[0], "treatment": lines[1]})
    return [given] + (_response(patient, draw) if draw.chance(RESPONSE_STATED) else [])


def _response(patient: Patient, draw: Draw) -> list[Statement]:
    surgery = _surgery(patient.cancer)
    resected = not patient.sites and any(line[0] in surgery for line in patient.lines)
    if resected and patient.lines[0][0] not in surgery and draw.chance(0.6):  # drugs first, then the operation
        return [Statement("response_pathologic", {"response": (Fact("response", "pathologic complete response"),)})]
    now = draw.weighted(RESPONSES["spread" if patient.sites else "resected" if resected else "local"])
    response = {"response": (Fact("response", now),)}
    if now in EARLIER and not resected and draw.chance(0.4):
        old = {"old_response": (Fact("response", draw.one(EARLIER[now]), "superseded"),)}
        return [Statement("response_changed", old | response)]
    return [Statement("response", response)]


def _benign(draw: Draw) -> Case:
    patient = Patient(sex=draw.one(["woman", "man"]), age=draw.between(45, 79))
    finding = draw.one(tables()["benign"]["findings"][patient.sex])
    own = [Statement("benign", words={"finding": finding}), Statement("benign_follow_up")]
    return Case(patient, own + distractors.family(patient, draw) + distractors.comorbidity(patient, draw))
