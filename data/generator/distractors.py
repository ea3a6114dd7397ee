"""What a note says that is no label: someone else's, earlier, planned, refused, negative, doubtful, replaced or unrelated."""

from data.generator.draw import Draw
from data.generator.knowledge import tables
from data.generator.patient import draw_marker
from data.generator.spare import RELATIVES, Unused
from data.generator.statement import Fact, Patient, Statement, facts

# How often a note of middle length says it, in percent.
OFTEN = {
    "metastasis_negative": 46,
    "gene_negative": 24,
    "gene_absent": 36,
    "metastasis_ruled_out": 24,
    "metastasis_hedged": 26,
    "gene_uncertain": 18,
    "gene_vus": 10,
    "marker_void": 41,
    "examined": 24,
    "pending": 20,
    "metastasis_pending": 10,
    "planned": 28,
    "declined": 20,
    "considered": 23,
    "stopped_before": 17,
    "response_expected": 14,
    "family": 32,
    "another_relative": 10,
    "prior": 20,
    "comorbidity": 46,
    "comorbidity_drug": 24,
    "tnm": 16,
    "grade": 16,
    "regional": 16,
    "invasion": 12,
    "performance": 14,
    "exam": 14,
    "social": 10,
    "logistics": 10,
    "supportive": 12,
    "toxicity": 10,
    "goal": 10,
    "opening": 16,
    "closing": 12,
}


ORGANS = ("liver", "lung", "brain", "bone", "adrenal gland", "kidney", "spleen", "pancreas")  # looked at on their own


def draw_all(patient: Patient, unused: Unused, density: float, draw: Draw) -> list[Statement]:
    """What else the note says; `density` 1 gives a note of middle length."""
    statements: list[Statement] = []
    for name, percent in OFTEN.items():
        if draw.chance(min(0.97, density * percent / 100)):
            statements += MAKERS[name](patient, unused, draw)
    return statements


def _metastasis_negative(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return _one("metastasis_negative", site=facts("metastasis_site", unused.sites(draw.weighted({1: 3, 2: 2}), draw), "negated"))


def _metastasis_hedged(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return _one("metastasis_hedged", site=facts("metastasis_site", unused.sites(1, draw), "hedged"))


def _metastasis_pending(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return _one("metastasis_pending", site=facts("metastasis_site", unused.sites(1, draw), "pending"))


def _metastasis_ruled_out(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    sites = unused.sites(1, draw)
    options = tables()["site"][sites[0]].get("benign") if sites else None
    if not options:
        return []
    return [Statement("metastasis_ruled_out", {"site": facts("metastasis_site", sites, "negated")}, {"benign": draw.one(options)})]


def _regional(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return [Statement("regional", words={"node": node}) for node in draw.some(patient.cancer.nodes, 1)]


def _invasion(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return [Statement("invasion", words={"organ": organ}) for organ in draw.some(patient.cancer.invades, 1)]


def _tnm(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    old = patient.sites and patient.stage in patient.cancer.stages  # the stage in the note is from before the spread
    options = patient.cancer.tnm[bool(patient.sites)] if patient.cancer.tnm and not old else []
    return [Statement("tnm", words={"tnm": tnm}) for tnm in draw.some(options, 1)]


def _grade(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return [Statement("grade", words={"grade": grade}) for grade in draw.some(patient.cancer.grades, 1)]


def _gene_negative(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    tests = unused.tests(draw.weighted({1: 2, 2: 2, 3: 1}), draw)
    return [Statement("gene_negative", words={"test": joined(tests, draw)})] if tests else []


def _gene_absent(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return _one("gene_absent", gene=facts("gene_mutation", unused.genes(draw.weighted({1: 3, 2: 1}), draw), "negated"))


def _gene_uncertain(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return _one("gene_uncertain", gene=facts("gene_mutation", unused.genes(1, draw), "hedged"))


def _gene_vus(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return [Statement("gene_vus", words={"test": test}) for test in unused.tests(1, draw)]


def _pending(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    marker = unused.marker(draw) if draw.chance(0.6) else None
    tests = [marker] if marker else unused.tests(1, draw)
    return [Statement("pending", words={"test": test}) for test in tests]


def _marker_void(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    name = unused.marker(draw)
    return _one("marker_void", marker=facts("biomarker", [draw_marker(name, draw)] if name else [], "hedged"))


def _examined(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return _one("examined", site=facts("metastasis_site", unused.sites(1, draw, ORGANS), "examined"))


def _not_given(kind: str):
    def make(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
        return _one(kind, treatment=facts("treatment", unused.line(draw), "declined" if kind == "declined" else "planned"))

    return make


def _response_expected(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    hoped = draw.one(["complete response", "partial response", "stable disease", "no evidence of disease"])
    return _one("response_expected", old_response=facts("response", [hoped], "expected"))


def _family(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    """A relative's cancer, perhaps with the relative's gene, treatment or stage."""
    relative = unused.relative(draw)
    cancer = unused.cancer(RELATIVES[relative], draw)
    fact_slots = {"cancer": facts("cancer_type", [cancer.name], "family")}
    inherited = [gene for gene in cancer.genes if gene.endswith("pathogenic variant") and gene not in patient.genes]
    kind = draw.weighted({"family": 3, "family_gene": 2, "family_treated": 3, "family_staged": 2})
    if kind == "family_gene":
        inherited = inherited or [gene for gene in tables()["gene"] if gene.endswith("pathogenic variant") and gene not in patient.genes]
        fact_slots["gene"] = facts("gene_mutation", draw.some(_known(inherited, unused), 1), "family")
    if kind == "family_treated":
        options = cancer.local + [item for line in cancer.systemic for item in line]
        fact_slots["treatment"] = facts("treatment", unused.treatments(options, 1, draw), "family")
    if kind == "family_staged":
        fact_slots["stage"] = facts("stage", draw.some(cancer.stages + cancer.distant, 1), "family")
    return [Statement(kind, fact_slots, {"relative": relative})] if all(fact_slots.values()) else []


def _known(genes: list[str], unused: Unused) -> list[str]:
    return genes if unused.entities == "all" else [gene for gene in genes if not tables()["gene"].get(gene, {}).get("held_out")]


def _prior(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    if not unused.has_earlier():
        return []
    cancer, years = unused.earlier(draw), draw.between(4, min(22, max(5, patient.age - 30)))
    fact_slots = {"cancer": facts("cancer_type", [cancer.name], "prior")}
    kind = draw.weighted({"prior": 2, "prior_treated": 4, "prior_staged": 3})
    if kind == "prior_treated":
        fact_slots["treatment"] = facts("treatment", unused.treatments(cancer.local, 1, draw), "prior")
    if kind == "prior_staged":
        fact_slots["stage"] = facts("stage", cancer.stages[:2] and [draw.one(cancer.stages[:2])], "prior")
    return [Statement(kind, fact_slots, {"years": str(years)})] if all(fact_slots.values()) else []


def _comorbidity_drug(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    illness = draw.one([table for table in tables()["comorbidity"] if table.get("drugs")])
    drug, words = draw.one(illness["drugs"]), {"comorbidity": illness["name"]}
    if drug not in tables()["treatment"]:
        return [Statement("comorbidity_drug", words=words | {"drug": drug})]
    drugs = unused.treatments([drug], 1, draw)  # methotrexate for arthritis
    return _one("comorbidity_drug", words, drug=facts("treatment", drugs, "comorbidity"))


def _comorbidity(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return [Statement("comorbidity", words={"comorbidity": draw.one(tables()["comorbidity"])["name"]})]


def _only_words(kind: str, needs: str = ""):
    """A maker of `kind`, whose slots are plain words; `needs` "lines" or "cancer" leaves it out where the patient has none."""

    def make(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
        return [Statement(kind)] if not needs or getattr(patient, needs) else []

    return make


def _social(patient: Patient, unused: Unused, draw: Draw) -> list[Statement]:
    return [Statement("social")] if patient.age >= 55 else []  # the frames speak of retirement and grandchildren


def marker_before(value: str, draw: Draw) -> str | None:
    """An older value of the marker of `value`; none where it is a status, which does not change."""
    name = max((name for name in tables()["marker"] if value.startswith(f"{name} ")), key=len, default=None)
    if name is None or "values" in tables()["marker"][name]:
        return None
    old = draw_marker(name, draw)
    return old if old != value else None


def joined(items: list[str], draw: Draw) -> str:
    if len(items) == 1:
        return items[0]
    last = draw.one([" and ", ", ", "/"])
    return ", ".join(items[:-1]) + last + items[-1] if last != "/" else "/".join(items)


def _one(kind: str, words: dict[str, str] | None = None, **fact_slots: tuple[Fact, ...]) -> list[Statement]:
    return [Statement(kind, fact_slots, words or {})] if all(fact_slots.values()) else []


MAKERS = {
    "metastasis_negative": _metastasis_negative,
    "metastasis_hedged": _metastasis_hedged,
    "metastasis_pending": _metastasis_pending,
    "metastasis_ruled_out": _metastasis_ruled_out,
    "gene_negative": _gene_negative,
    "gene_absent": _gene_absent,
    "gene_uncertain": _gene_uncertain,
    "gene_vus": _gene_vus,
    "marker_void": _marker_void,
    "examined": _examined,
    "pending": _pending,
    "planned": _not_given("planned"),
    "declined": _not_given("declined"),
    "considered": _not_given("considered"),
    "stopped_before": _not_given("stopped_before"),
    "response_expected": _response_expected,
    "family": _family,
    "another_relative": _family,
    "prior": _prior,
    "comorbidity": _comorbidity,
    "comorbidity_drug": _comorbidity_drug,
    "tnm": _tnm,
    "grade": _grade,
    "regional": _regional,
    "invasion": _invasion,
    "performance": _only_words("performance", "cancer"),
    "exam": _only_words("exam"),
    "social": _social,
    "logistics": _only_words("logistics"),
    "supportive": _only_words("supportive", "lines"),
    "toxicity": _only_words("toxicity", "lines"),
    "goal": _only_words("goal"),
    "opening": _only_words("opening"),
    "closing": _only_words("closing"),
}
