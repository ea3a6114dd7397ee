"""One good answer, for tests that break it."""

import pytest


@pytest.fixture
def answer():
    return {
        "cancer_type": "lung adenocarcinoma",
        "stage": "IV",
        "gene_mutation": ["EGFR L858R"],
        "biomarker": [],
        "treatment": ["osimertinib"],
        "response": None,
        "metastasis_site": ["brain", "bone"],
    }
