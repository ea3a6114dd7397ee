"""What makes a note hard to read, as tags: told from the kinds of its statements and of its spellings."""

from data.generator.case import Case
from data.generator.note import Note

BY_KIND = {
    "negated": {"metastasis_negative", "metastasis_ruled_out", "gene_negative", "gene_absent"},
    "revised": {"metastasis_ruled_out", "stage_corrected", "diagnosis_corrected", "benign"},
    "hedged": {"metastasis_hedged", "gene_uncertain", "gene_vus", "marker_void", "response_expected", "metastasis_pending"},
    "family": {"family", "family_gene", "family_treated", "family_staged"},
    "prior": {"prior", "prior_treated", "prior_staged", "diagnosis_after"},
    "comorbidity": {"comorbidity", "comorbidity_drug"},
    "not_given": {"planned", "declined", "considered", "stopped_before"},
    "pending": {"pending", "metastasis_pending"},
    "lines": {"treated_lines", "treated_three", "treated_adjuvant"},
    "response_replaced": {"response_changed", "response_early"},
    "stage_replaced": {"restaged", "stage_corrected"},
    "marker_replaced": {"marker_changed"},
    "lesions": {"lesions"},
}
BY_SPELLING = {
    "abbreviation": {"abbreviation"},
    "brand": {"brand"},
    "hgvs": {"hgvs"},
    "unit": {"unit"},
    "misspelling": {"misspelling"},
    "described": {"described"},
}
# The stage or the response stands apart from the cancer or the treatment that it belongs to.
APART = [({"diagnosis", "diagnosis_later", "diagnosis_corrected", "diagnosis_after"}, {"stage", "restaged", "stage_corrected"})]
APART += [
    (
        {"treated", "treated_drug", "treated_procedure", "treated_lines", "treated_three", "treated_adjuvant"},
        {"response", "response_described"},
    )
]


def tags(case: Case, note: Note) -> list[str]:
    """The phenomena of a note, in a fixed order."""
    kinds = [frame.split(".")[0] for frame in note.frames]
    written = {part.kind for part in note.parts if part.fact}
    names = [name for name, wanted in BY_KIND.items() if wanted & set(kinds)]
    names += [name for name, wanted in BY_SPELLING.items() if wanted & written]
    names += ["distance"] * any(_are_apart(kinds, first, second) for first, second in APART)
    names += ["unusual"] * case.patient.unusual
    return names + ["noise"] * bool(note.noise)


def _are_apart(kinds: list[str], first: set[str], second: set[str]) -> bool:
    """Whether another statement stands between one of `first` and one of `second`, or they come in reverse."""
    one = [number for number, kind in enumerate(kinds) if kind in first]
    other = [number for number, kind in enumerate(kinds) if kind in second]
    return bool(one and other) and other[0] - one[0] not in (1,)
