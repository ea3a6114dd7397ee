"""The shipped set is what the generator makes, and is what it claims to be."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data import generate, schema
from data.generator.case import Case, label
from data.generator.draw import Draw
from data.generator.knowledge import cancers, frames, spellings, tables
from data.generator.note import write
from data.generator.statement import Fact, Patient, Statement
from data.rows import read_jsonl

ROOM = Path(generate.__file__).parent
SPLITS = {split.name: split for split in generate.SPLITS}


@pytest.fixture(scope="module")
def shipped():
    return {name: [json.loads(line) for line in (ROOM / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()] for name in SPLITS}


def test_the_files_are_made_again_byte_for_byte_whatever_the_hash_seed(tmp_path):
    command = "import sys; from pathlib import Path; from data.generate import main; main(Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOM.parent)}
    subprocess.run([sys.executable, "-c", command, tmp_path], env=environment, check=True, timeout=60, capture_output=True)
    for name in SPLITS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (ROOM / f"{name}.jsonl").read_bytes(), f"run `python -m data.generate` ({name})"


def test_the_first_rows_stay_when_a_split_grows(shipped):
    assert generate.rows(replace(SPLITS["train"], rows=50)) == shipped["train"][:50]


def test_sizes_ids_and_keys(shipped):
    assert {name: len(rows) for name, rows in shipped.items()} == {name: split.rows for name, split in SPLITS.items()}
    rows = [row for rows in shipped.values() for row in rows]
    assert len({row["id"] for row in rows}) == len({row["input"] for row in rows}) == len(rows)
    assert all(list(row) == ["id", "instruction", "input", "output", "meta"] for row in rows)
    assert all(list(row["output"]) == schema.fields() for row in rows)


@pytest.mark.parametrize("name", SPLITS)
def test_every_row_can_be_read_and_is_valid(name):
    assert all(schema.fits(row.output, schema.schema()) for row in read_jsonl(ROOM / f"{name}.jsonl"))


def test_every_label_value_stands_in_the_text_in_one_of_its_spellings(shipped):
    for row in (row for rows in shipped.values() for row in rows):
        asserted = [fact for fact in row["meta"]["evidence"] if fact["status"] == "asserted"]
        for fact in asserted:
            surface = row["input"][fact["start"] : fact["end"]].casefold()
            assert surface in [spelling.casefold() for spelling in spellings(fact["field"], fact["value"])]
        values = {
            (name, value) for name, found in row["output"].items() for value in (found if isinstance(found, list) else [found]) if value
        }
        assert values == {(fact["field"], fact["value"]) for fact in asserted}


def test_training_and_validation_share_no_sentence_and_no_instruction(shipped):
    train, validation = shipped["train"] + shipped["smoke_train"], shipped["validation"] + shipped["smoke_validation"]
    assert not {row["instruction"] for row in train} & {row["instruction"] for row in validation}
    used = [{frame.rsplit(".", 1)[0].split(".")[1] for row in rows for frame in row["meta"]["frames"]} for rows in (train, validation)]
    assert used == [{"train"}, {"held_out"}]
    for kind, pools in frames().items():
        assert not set(map(skeleton, pools["train"])) & set(map(skeleton, pools["held_out"])), kind


def skeleton(frame):
    return re.sub(r"\W+", " ", frame).casefold().strip()


def test_the_set_is_varied_and_empty_is_an_answer_everywhere(shipped):
    for name in ("train", "validation"):
        rows = shipped[name]
        types = Counter(row["output"]["cancer_type"] for row in rows)
        assert len(types) > 20
        assert max(types.values()) <= 0.1 * len(rows)
        assert all(0.01 * len(rows) <= sum(not row["output"][field] for row in rows) <= 0.65 * len(rows) for field in schema.fields())
        assert all(25 <= len(row["input"].split()) <= 90 for row in rows)
        statuses = Counter(status for row in rows for status in {fact["status"] for fact in row["meta"]["evidence"]})
        assert all(
            statuses[status] >= 0.05 * len(rows) for status in ("negated", "hedged", "family", "prior", "planned", "declined", "superseded")
        )


def test_a_spelling_means_one_value():
    values = [("cancer_type", name) for name in cancers()]
    values += [
        ("treatment", name)
        for name in {item for cancer in cancers().values() for line in [*cancer.systemic, cancer.local] for item in line}
    ]
    values += [("gene_mutation", gene) for cancer in cancers().values() for gene in cancer.genes]
    values += [("biomarker", value) for marker in tables()["marker"].values() for value in marker.get("values", {})]
    values += [("response", value) for value in tables()["response"]] + [("metastasis_site", site) for site in tables()["site"]]
    meanings = {}
    for field, value in set(values):
        for spelling in spellings(field, value):
            assert meanings.setdefault((field, spelling.casefold()), value) == value


def test_every_other_spelling_belongs_to_something_the_knowledge_uses():
    lines = [line for cancer in cancers().values() for line in cancer.systemic]
    lines += [line for cancer in cancers().values() for options in cancer.targeted.values() for line in options]
    everything = [item for line in lines for item in line]
    everything += [item for cancer in cancers().values() for item in cancer.local + cancer.adjuvant] + ["stereotactic radiosurgery"]
    assert set(tables()["treatment"]) <= set(everything)
    assert set(tables()["gene"]) <= {gene for cancer in cancers().values() for gene in cancer.genes}


def test_the_label_holds_asserted_facts_only_and_keeps_their_order():
    facts = {
        "first": (Fact("treatment", "b"), Fact("treatment", "a")),
        "old_stage": (Fact("stage", "I", "superseded"),),
        "stage": (Fact("stage", "II"),),
    }
    family = {"cancer": (Fact("cancer_type", "melanoma", "family"),)}
    answer = label(Case(Patient("woman", 60), [Statement("any", facts), Statement("family", family)]))
    assert (answer["treatment"], answer["stage"], answer["cancer_type"], answer["biomarker"]) == (["b", "a"], "II", None, [])


def test_a_text_that_does_not_support_its_answer_is_refused(answer):
    case = Case(Patient("woman", 60), [Statement("treated", {"treatment": (Fact("treatment", "osimertinib"),)})])
    note = write(case, "train", Draw("a test"))
    generate.check(note, label(case))
    with pytest.raises(ValueError, match="the text says"):
        generate.check(note, answer)
    note.evidence[0]["end"] -= 1
    with pytest.raises(ValueError, match="is no spelling of 'osimertinib'"):
        generate.check(note, label(case))


def test_chance_is_the_same_everywhere():
    draw = Draw(1, "train", 0)
    assert [draw.below(100) for _ in range(5)] == [24, 12, 76, 52, 7]
    assert sorted(Draw("x").some([1, 2, 3, 4], 9)) == [1, 2, 3, 4]
    assert Counter(Draw(number).weighted({"a": 3, "b": 1}) for number in range(1000))["a"] == pytest.approx(750, abs=60)


def test_the_readme_states_the_measured_figures(shipped):
    text = (ROOM / "README.md").read_text(encoding="utf-8")
    for name_of_figure, figure in MEASURED.items():
        line = f"| {name_of_figure} | " + " | ".join(figure(shipped[name]) for name in ("train", "validation")) + " |"
        assert line in text, f"README.md should say: {line}"


def share(rows, holds):
    return f"{sum(map(holds, rows)) / len(rows):.0%}"


def empty(name):
    return lambda rows: share(rows, lambda row: not row["output"][name])


def stating(*statuses):
    return lambda rows: share(rows, lambda row: any(fact["status"] in statuses for fact in row["meta"]["evidence"]))


def saying(*kinds):
    return lambda rows: share(rows, lambda row: any(frame.split(".")[0] in kinds for frame in row["meta"]["frames"]))


def words(rows):
    counts = sorted(len(row["input"].split()) for row in rows)
    return f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"


def aliased(row):
    return any(
        row["input"][fact["start"] : fact["end"]].casefold() != fact["value"].casefold()
        for fact in row["meta"]["evidence"]
        if fact["field"] != "stage"
    )


MEASURED = {
    "rows": lambda rows: f"{len(rows):,}",
    "words of a note (least / median / most)": words,
    "cancer types": lambda rows: str(len({row["output"]["cancer_type"] for row in rows} - {None})),
    "most frequent cancer type": lambda rows: share(rows, lambda row: row["output"]["cancer_type"] == most_common_type(rows)),
    **{f"{name} empty": empty(name) for name in schema.fields()},
    "negated finding or test": stating("negated"),
    "hedged finding or hope": stating("hedged"),
    "family history": stating("family"),
    "earlier cancer": stating("prior"),
    "planned or declined therapy": stating("planned", "declined"),
    "superseded stage or response": stating("superseded"),
    "two lines of therapy": saying("treated_lines"),
    "pending or failed test": saying("pending"),
    "brand name, abbreviation or other spelling": lambda rows: share(rows, aliased),
}


def most_common_type(rows):
    return Counter(row["output"]["cancer_type"] for row in rows if row["output"]["cancer_type"]).most_common(1)[0][0]
