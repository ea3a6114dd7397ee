"""A made-up patient: what is true of this disease now, drawn from what goes with the cancer, now and then from what seldom does."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from functools import cache

from data.generator.draw import Draw
from data.generator.knowledge import Cancer, cancers, marker_name, tables
from data.generator.statement import Patient

# What a share of notes says nothing about, so that empty is an answer in every field.
STAGE_STATED, GENE_STATED, MARKER_STATED, TREATED, DISTANT = 0.82, 0.67, 0.73, 0.91, 0.64
RECURRED = 0.3  # spread that came later: the stage in the note is still the one at diagnosis
RECURRED_LATE = 0.4  # the same where spread has one group only, which would be a safe guess
UNUSUAL = 0.15  # of the patients hold something that this cancer seldom has, so that a cancer's habits cannot replace reading
# What cannot be true together: with the first, the second is not drawn.
CLASHES = [("MSI-H", "MMR proficient"), ("MSS", "MMR deficient"), ("ERBB2 amplification", "HER2 negative")]
LINES = {1: 48, 2: 34, 3: 18}
COUNT = {1: 52, 2: 30, 3: 13, 4: 5}


def draw_patient(draw: Draw, entities: str, plain: bool) -> Patient:
    """A patient with a cancer; `plain` ones had one line of treatment and nothing unusual."""
    by_name = cancers(entities)
    cancer = by_name[draw.weighted({name: cancer.weight for name, cancer in by_name.items()})]
    unusual = not plain and draw.chance(UNUSUAL)
    distant = bool(cancer.sites) and draw.chance(DISTANT)
    patient = Patient(
        sex=draw.one(cancer.sexes),
        age=draw.between(*cancer.ages),
        cancer=cancer,
        stage=_stage(cancer, distant, draw) if draw.chance(STAGE_STATED) else None,
        genes=_genes(cancer, unusual, entities, draw) if draw.chance(GENE_STATED) else [],
        sites=_sites(cancer, unusual, draw) if distant else [],
        unusual=unusual,
    )
    markers = _markers(patient, draw) if draw.chance(MARKER_STATED) else []
    patient = replace(patient, markers=markers)
    return patient.with_lines(_lines(patient, entities, plain, draw) if draw.chance(TREATED) else [])


def _stage(cancer: Cancer, distant: bool, draw: Draw) -> str | None:
    recurred = distant and cancer.distant and cancer.stages and draw.chance(RECURRED if len(cancer.distant) > 1 else RECURRED_LATE)
    groups = cancer.distant if distant and not recurred else cancer.stages
    return draw.one(groups) if groups else None


def _genes(cancer: Cancer, unusual: bool, entities: str, draw: Draw) -> list[str]:
    count = draw.weighted(COUNT)
    genes = draw.some(cancer.genes, min(count, 2))
    if unusual and draw.chance(0.6):
        genes = [draw.one(shared_genes(entities)), *genes[1:]]
    others = [*tables()["co_alterations"], *shared_genes(entities)]
    for gene in draw.some(others, count - len(genes)):
        genes.append(gene)
    return list({gene.split()[0]: gene for gene in genes}.values())  # one alteration a gene


@cache
def shared_genes(entities: str) -> list[str]:
    """The alterations that several cancers have."""
    return _in_several([cancer.genes for cancer in cancers(entities).values()], 2)


@cache
def shared_drugs(entities: str) -> list[str]:
    """The drugs that many cancers are treated with."""
    return _in_several([[item for line in cancer.systemic for item in line] for cancer in cancers(entities).values()], 8)


def _in_several(lists: list[list[str]], least: int) -> list[str]:
    counts = Counter(value for values in lists for value in sorted(set(values)))
    return sorted(value for value, count in counts.items() if count >= least)


def _markers(patient: Patient, draw: Draw) -> list[str]:
    cancer = patient.cancer
    panel = draw.one(cancer.panels) if cancer.panels and draw.chance(0.72) else []
    panel = draw.some(panel, draw.weighted({1: 2, 2: 2, 3: 3}))
    measured = {marker_name(value) for value in panel}
    names = draw.some(
        [name for name in cancer.markers if name not in measured], draw.weighted({0: 4, 1: 3} if panel else {1: 5, 2: 4, 3: 2})
    )
    markers = panel + [draw_marker(name, draw) for name in names]
    clashing = {denied for one, denied in CLASHES if one in markers + patient.genes}
    return [value for value in markers if value not in clashing]


def draw_marker(name: str, draw: Draw) -> str:
    """A value of the marker `name`."""
    marker = tables()["marker"][name]
    if "values" in marker:
        return draw.one(list(marker["values"]))
    decimals = len(str(marker.get("step", 1)).partition(".")[2])
    low, high, step = (round(marker.get(key, 1) * 10**decimals) for key in ("low", "high", "step"))
    if high >= 100 * low > 0:  # a wide range: small numbers as often as large ones
        high = draw.one([high // 30, high // 6, high])
    number = Decimal(draw.between(low, high, step)) / 10**decimals
    return f"{name} {number:f}{marker['unit']}"


def _sites(cancer: Cancer, unusual: bool, draw: Draw) -> list[str]:
    sites = draw.some(cancer.sites, draw.weighted(COUNT))
    rare = [site for site in tables()["site"] if site not in cancer.sites and site not in ("ovary",)]
    if unusual and rare and draw.chance(0.6):
        sites = [*sites[1:], draw.one(rare)]
    return sites


def _lines(patient: Patient, entities: str, plain: bool, draw: Draw) -> list[list[str]]:
    """What the patient received, line by line, nothing twice."""
    count = 1 if plain else draw.weighted(LINES)
    lines = _spread_lines(patient, count, draw) if patient.sites else _local_lines(patient, count, draw)
    if patient.unusual and draw.chance(0.6):
        lines = [*lines[:2], [draw.one(shared_drugs(entities))]]
    seen: set[str] = set()
    new_lines = []
    for line in lines:
        new_lines.append([item for item in line if item not in seen])
        seen |= set(line)
    return [line for line in new_lines if line]


def _spread_lines(patient: Patient, count: int, draw: Draw) -> list[list[str]]:
    lines = draw.some(_distinct(patient.options()), count)
    if "brain" in patient.sites and count > 1 and draw.chance(0.4):
        return [*lines[:-1], ["stereotactic radiosurgery"]]
    if patient.cancer.local and count > 1 and draw.chance(0.35):  # operated on first, spread later
        return [[draw.one(patient.cancer.local)], *lines[1:]]
    return lines


def _local_lines(patient: Patient, count: int, draw: Draw) -> list[list[str]]:
    cancer, drugs = patient.cancer, draw.one(patient.options())
    surgery = [[item] for item in cancer.local if is_surgery(item)]
    if count == 1:
        advanced = not cancer.local or patient.stage is None or patient.stage.startswith("I")
        return [draw.one([[item] for item in cancer.local] + ([drugs] if advanced or not cancer.local else []))]
    after = [[item] for item in cancer.adjuvant]
    before = [[drugs, draw.one(surgery)]] if surgery and cancer.neoadjuvant else []
    if not cancer.local:
        return draw.some([*after, *_distinct(patient.options())], count)
    order = draw.one(before + [[[draw.one(cancer.local)], line] for line in [*after, drugs]])
    return order + draw.some([line for line in [*after, *_distinct(patient.options())] if line not in order], count - 2)


def is_surgery(item: str) -> bool:
    return tables()["treatment"].get(item, {}).get("type") == "surgery"


def _distinct(lines: list[list[str]]) -> list[list[str]]:
    """`lines` that share no drug, the first of each kind."""
    distinct, seen = [], set()
    for line in lines:
        if not seen & set(line):
            distinct.append(line)
            seen |= set(line)
    return distinct
