"""The shipped set is what the generator makes, and is what it claims to be."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from data import generate, schema
from data.generator import gates, manifest
from data.generator.case import Case, label
from data.generator.check import check_evidence
from data.generator.draw import Draw
from data.generator.frames import frames, instructions, kinds
from data.generator.knowledge import cancers, held_out, tables
from data.generator.likeness import Likeness, normal, runs_of
from data.generator.note import write
from data.generator.plan import TOPIC, arrange
from data.generator.shelf import Repetitions
from data.generator.spelling import means, spellings
from data.generator.statement import Patient, Statement, facts
from data.rows import read

ROOM = Path(generate.__file__).parent
SPLITS = {split.name: split for split in generate.SPLITS}
STAGES = [stage for stage in schema.schema()["properties"]["stage"]["enum"] if stage]


@pytest.fixture(scope="module")
def shipped():
    return gates.shipped(ROOM)


def first_rows(name, count):
    """The first rows of a split's file as they are drawn when no row before them stands in the way."""
    return list(islice(generate.rows(SPLITS[name], Repetitions()), count))


PRINT = """
import hashlib, json
from dataclasses import replace
from data import generate
from data.generator.shelf import Repetitions
rows = [row for split in generate.SPLITS for row in generate.rows(replace(split, rows=12), Repetitions())]
print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""


@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13"])
def test_every_python_draws_the_same_rows_whatever_its_hash_seed(python):
    if not (path := shutil.which(python)) or subprocess.run([path, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{python} is not installed")
    digests = set()
    for interpreter, seed in ((path, "4242"), (sys.executable, "0")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOM.parent)}
        ran = subprocess.run([interpreter, "-c", PRINT], env=environment, check=True, timeout=900, capture_output=True, text=True)
        digests.add(ran.stdout)
    assert len(digests) == 1


def test_the_files_are_those_of_the_manifest_and_of_the_tables():
    written = json.loads((ROOM / "manifest.json").read_text(encoding="utf-8"))
    for name, file in written["files"].items():
        assert hashlib.sha256((ROOM / name).read_bytes()).hexdigest() == file["sha256"], f"run `inv data.build` ({name})"
    assert written["tables"] == manifest.tables_sha256(), "the knowledge or the frames changed: run `inv data.build`"
    assert sum((ROOM / name).stat().st_size for name in written["files"]) < 15_000_000


def test_the_generator_still_draws_the_shipped_rows(shipped):
    generated = first_rows("validation", 40)
    assert json.loads(json.dumps(generated)) == shipped["validation"][:40], "run `inv data.build`"


def test_the_first_rows_stay_when_a_split_grows():
    short = list(generate.rows(replace(SPLITS["validation"], rows=15), Repetitions()))
    assert list(generate.rows(replace(SPLITS["validation"], rows=30), Repetitions()))[:15] == short
    assert generate.SPLITS[-1].name == "train"  # so that a larger training set changes no other file


def test_sizes_ids_and_keys(shipped):
    assert {name: len(rows) for name, rows in shipped.items()} == {name: split.rows for name, split in SPLITS.items()}
    rows = [row for rows in shipped.values() for row in rows]
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(list(row) == ["id", "instruction", "input", "output", "meta"] for row in rows)
    assert all(list(row["output"]) == schema.fields() for row in rows)


@pytest.mark.parametrize("name", SPLITS)
def test_every_row_can_be_read(name):
    assert len(read(ROOM / f"{name}.jsonl")) == SPLITS[name].rows


@pytest.fixture(scope="module")
def measured(shipped):
    return gates.measure(shipped)


def test_the_shipped_files_pass_every_gate(measured):
    assert [f"{gate.name}: {gate.measured}, wanted {gate.wanted}" for gate in measured if not gate.holds] == []


def test_the_readme_states_the_measured_figures(measured):
    text = (ROOM / "README.md").read_text(encoding="utf-8")
    missing = [line for line in gates.table(measured).splitlines() if line not in text]
    assert missing == [], "paste what `python -m data.generator.gates` prints into data/README.md"


def test_a_gate_fails_when_its_promise_is_broken(shipped):
    few = {name: rows[:20] for name, rows in shipped.items()}
    broken = few | {"train": [*few["train"], few["validation"][0]]}
    for gate in (gates.duplicates, gates.nearness, gates.long_runs, gates.shared_frames):
        assert all(result.holds for result in gate(few) if "share" in result.name or "alike" in result.name), gate.__name__
        assert not all(result.holds for result in gate(broken) if "frames used" not in result.name), gate.__name__
    wrong = few | {"train": [few["train"][0] | {"output": few["train"][0]["output"] | {"treatment": ["aspirin"]}}]}
    assert not all(result.holds for result in gates.support(wrong))


def test_a_spelling_means_one_value():
    values = [("cancer_type", name) for name in cancers("all")] + [("stage", stage) for stage in STAGES]
    values += [("gene_mutation", gene) for gene in tables()["gene"]] + [("treatment", name) for name in tables()["treatment"]]
    values += [("biomarker", value) for marker in tables()["marker"].values() for value in marker.get("values", {})]
    values += [("response", value) for value in tables()["response"]] + [("metastasis_site", site) for site in tables()["site"]]
    meanings = {}
    for name, value in values:
        for spelling in spellings(name, value):
            assert meanings.setdefault((name, spelling.text.casefold()), value) == value, spelling


def test_the_knowledge_names_nothing_that_it_does_not_know():
    for cancer in cancers("all").values():
        lines = [*cancer.systemic, cancer.local, cancer.adjuvant, *(line for lines in cancer.targeted.values() for line in lines)]
        assert {item for line in lines for item in line} <= set(tables()["treatment"]), cancer.name
        assert set(cancer.genes) <= set(tables()["gene"]) and set(cancer.sites) <= set(tables()["site"]), cancer.name
        assert set(cancer.markers) <= set(tables()["marker"]), cancer.name
        assert set(cancer.stages + cancer.distant) <= set(STAGES), cancer.name


def test_training_knows_nothing_that_is_held_out():
    for cancer in cancers("known").values():
        assert not {item for line in [*cancer.systemic, cancer.local, cancer.adjuvant, cancer.genes] for item in line} & held_out()
    assert len(cancers("all")) - len(cancers("known")) >= 4


def test_every_kind_has_sentences_for_both_pools_and_both_forms_that_differ():
    assert set(kinds()) <= set(TOPIC)
    for kind in kinds():
        texts = [{frame.text for form in ("prose", "terse") for frame in frames(kind, pool, form)} for pool in ("train", "held_out")]
        assert all(len(sentences) >= 6 for sentences in texts), kind
        runs = [{run for text in sentences for run in runs_of(normal(text), 7)} for sentences in texts]
        assert not texts[0] & texts[1] and not runs[0] & runs[1], kind
    assert not set(instructions("train")) & set(instructions("held_out"))


def test_likeness_is_exact():
    likeness, notes = Likeness(), [" ".join(str(Draw(number, word).below(4)) for word in range(40)) for number in range(300)]
    for note in notes[1:]:
        likeness.add("a", note)
    shingles = [runs_of(note, 3) for note in notes]
    expected = [len(shingles[0] & other) / len(shingles[0] | other) for other in shingles[1:]]
    assert sorted(value for _, value in likeness.alike(notes[0], 0.3)) == sorted(value for value in expected if value > 0.3)


@pytest.mark.parametrize(
    ("name", "value", "surface"),
    [
        ("gene_mutation", "EGFR L858R", "EGFR p.Leu858Arg"),
        ("stage", "IIIB", "stage 3b"),
        ("biomarker", "PSA 14 ng/mL", "PSA 14 ug/L"),
        ("treatment", "pembrolizumab", "Keytruda"),
        ("metastasis_site", "liver", "HEPATIC"),
    ],
)
def test_a_surface_is_known_as_its_value_and_as_no_other(name, value, surface):
    assert means(name, value, surface)
    other = {"stage": "IIIA", "biomarker": "PSA 15 ng/mL"}.get(name)
    assert other is None or not means(name, other, surface)


def test_the_label_holds_asserted_facts_only_and_keeps_their_order():
    stages = {"old_stage": facts("stage", ["I"], "superseded"), "stage": facts("stage", ["II"])}
    slots = {"first": facts("treatment", ["b", "a"])}
    family = {"cancer": facts("cancer_type", ["melanoma"], "family")}
    answer = label(Case(Patient("woman", 60), [Statement("any", stages), Statement("any", slots), Statement("family", family)]))
    assert (answer["treatment"], answer["stage"], answer["cancer_type"], answer["biomarker"]) == (["b", "a"], "II", None, [])


def test_a_text_that_does_not_support_its_answer_is_refused(answer):
    draw = Draw("a test")
    case = Case(Patient("woman", 60), [Statement("treated", {"treatment": facts("treatment", ["osimertinib"])})])
    text, evidence = write(case, arrange(case, "train", draw), "train", draw).render()
    check_evidence(text, evidence, label(case))
    with pytest.raises(ValueError, match="the text says"):
        check_evidence(text, evidence, answer)
    denied = ["treatment", "osimertinib", "planned", *evidence[0][3:]]
    with pytest.raises(ValueError, match="both asserts and denies"):
        check_evidence(text, [*evidence, denied], label(case))
    evidence[0][4] -= 1
    with pytest.raises(ValueError, match="is no spelling of 'osimertinib'"):
        check_evidence(text, evidence, label(case))


def test_chance_is_the_same_everywhere():
    draw = Draw(1, "train", 0)
    assert [draw.below(100) for _ in range(5)] == [24, 12, 76, 52, 7]
    assert sorted(Draw("x").some([1, 2, 3, 4], 9)) == [1, 2, 3, 4]
    assert Counter(Draw(number).weighted({"a": 3, "b": 1}) for number in range(1000))["a"] == pytest.approx(750, abs=60)
