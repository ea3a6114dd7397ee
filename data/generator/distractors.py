"""What a note says that is no label: someone else's, earlier, planned, refused, negative, doubtful or unrelated."""

from data.generator.draw import Draw
from data.generator.knowledge import Cancer, cancers, marker_name, tables
from data.generator.statement import Fact, Patient, Statement

RELATIVES = {
    "mother": "woman",
    "sister": "woman",
    "maternal aunt": "woman",
    "grandmother": "woman",
    "father": "man",
    "brother": "man",
    "paternal uncle": "man",
}

BLOOD = {"LDH", "ALP", "CEA", "PSA", "AFP", "CA-125", "CA 19-9", "beta-hCG", "thyroglobulin"}  # no tissue is needed
NODES_ARE_RARE = {"osteosarcoma", "hepatocellular carcinoma", "gastrointestinal stromal tumor"}


def draw_some(patient: Patient, count: int, draw: Draw) -> list[Statement]:
    """`count` statements on different topics (two on one could contradict each other), as far as the patient allows them."""
    statements: list[Statement] = []
    for topic in draw.some(list(TOPICS), len(TOPICS)):
        if len(statements) < count:
            statements += draw.one(TOPICS[topic])(patient, draw)
    return statements


def _metastasis_negative(patient: Patient, draw: Draw) -> list[Statement]:
    sites = draw.some([site for site in patient.cancer.sites if site not in patient.sites], draw.weighted({1: 2, 2: 1}))
    return _statement("metastasis_negative", site=_facts("metastasis_site", sites, "negated"))


def _metastasis_hedged(patient: Patient, draw: Draw) -> list[Statement]:
    lesions = [
        site for site in ("liver", "lung", "bone", "brain", "adrenal gland") if site in patient.cancer.sites and site not in patient.sites
    ]
    return _statement("metastasis_hedged", site=_facts("metastasis_site", draw.some(lesions, 1), "hedged"))


def _regional(patient: Patient, draw: Draw) -> list[Statement]:
    return [Statement("regional")] if patient.sites and patient.cancer.name not in NODES_ARE_RARE else []


def _gene_negative(patient: Patient, draw: Draw) -> list[Statement]:
    genes = draw.some(_untested(patient.cancer.tests, patient), draw.weighted({1: 1, 2: 1}))
    return _statement("gene_negative", gene=_facts("gene_mutation", genes, "negated"))


def _pending(patient: Patient, draw: Draw) -> list[Statement]:
    markers = [name for name in patient.cancer.markers if name not in BLOOD]
    return [Statement("pending", words={"test": name}) for name in draw.some(_untested(patient.cancer.tests + markers, patient), 1)]


def _planned(patient: Patient, draw: Draw) -> list[Statement]:
    return _not_given("planned", patient, draw)


def _declined(patient: Patient, draw: Draw) -> list[Statement]:
    return _not_given("declined", patient, draw)


def _not_given(status: str, patient: Patient, draw: Draw) -> list[Statement]:
    lines = [line for line in patient.options() if not set(line) & patient.received()]
    return _statement(status, treatment=_facts("treatment", draw.one(lines) if lines else [], status))


def _goal(patient: Patient, draw: Draw) -> list[Statement]:
    open_end = patient.sites or not patient.lines  # else the hope may have come true
    hoped = ["complete response"] if open_end else []
    return _statement("goal", response=_facts("response", hoped, "hedged"))


def family(patient: Patient, draw: Draw) -> list[Statement]:
    """A relative's cancer, perhaps with the relative's gene or treatment."""
    relative = draw.one(list(RELATIVES))
    cancer = draw.one([cancer for cancer in cancers().values() if RELATIVES[relative] in cancer.sexes])
    facts = {"cancer": _facts("cancer_type", [cancer.name], "family")}
    inherited = [gene for gene in cancer.genes if gene.endswith("pathogenic variant") and gene not in patient.genes]
    treatments = _other_treatments(cancer, patient)
    kind = draw.weighted({"family": 3, "family_gene": 2 if inherited else 0, "family_treated": 2 if treatments else 0})
    if kind == "family_gene":
        facts["gene"] = _facts("gene_mutation", draw.some(inherited, 1), "family")
    if kind == "family_treated":
        facts["treatment"] = _facts("treatment", draw.some(treatments, 1), "family")
    return [Statement(kind, facts, {"relative": relative})]


def _prior(patient: Patient, draw: Draw) -> list[Statement]:
    options = [cancers()[name] for name in tables()["curable"] if patient.sex in cancers()[name].sexes and name != patient.cancer.name]
    if patient.age < 60:  # too young for most cancers to be long ago
        return []
    cancer, facts = draw.one(options), {}
    facts["cancer"] = _facts("cancer_type", [cancer.name], "prior")
    treatments = [item for item in cancer.local if item not in patient.received()]
    if treatments and draw.chance(0.6):
        facts["stage"] = _facts("stage", [draw.one(cancer.stages[:2])], "prior")
        facts["treatment"] = _facts("treatment", draw.some(treatments, 1), "prior")
    years = str(draw.between(6, 18))
    return [Statement("prior_treated" if "treatment" in facts else "prior", facts, {"years": years})]


def _grade(patient: Patient, draw: Draw) -> list[Statement]:
    return [Statement("grade", words={"grade": grade}) for grade in draw.some(patient.cancer.grades, 1)]


def comorbidity(patient: Patient, draw: Draw) -> list[Statement]:
    """Something about the patient that is not about cancer."""
    return [Statement("comorbidity")]


def _other_treatments(cancer: Cancer, patient: Patient) -> list[str]:
    return [item for item in cancer.local + [line[0] for line in cancer.systemic if len(line) == 1] if item not in patient.received()]


def _untested(names: list[str], patient: Patient) -> list[str]:
    known = {gene.split()[0] for gene in patient.genes} | {marker_name(value) for value in patient.markers}
    return [name for name in names if name not in known]


def _facts(name: str, values: list[str], status: str) -> tuple[Fact, ...]:
    return tuple(Fact(name, value, status) for value in values)


def _statement(kind: str, **facts: tuple[Fact, ...]) -> list[Statement]:
    return [Statement(kind, facts)] if all(facts.values()) else []


TOPICS = {
    "spread": [_metastasis_negative, _metastasis_hedged, _regional],
    "tests": [_gene_negative, _pending],
    "therapy": [_planned, _declined, _goal],
    "relatives": [family],
    "past": [_prior],
    "unrelated": [_grade, comorbidity],
}
