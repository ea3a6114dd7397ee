"""`python -m trainer preflight`: what a run would see and need on this machine, or the first sentence of why it cannot be."""

import subprocess

import loaded
import pytest
from conftest import ROOT

from conf.text.quoting import quoted
from tests.unit.trainer.conftest import TRAIN, VALIDATION


def preflight(tiny, *words: str) -> subprocess.CompletedProcess:
    own = [
        "cloud=twin",
        "experiment=smoke",
        f"model.id={quoted(tiny)}",
        f"data.train={quoted(TRAIN)}",
        f"data.validation={quoted(VALIDATION)}",
    ]
    return subprocess.run([*loaded.trainer(), "trainer", "preflight", *own, *words], cwd=ROOT, text=True, capture_output=True)


def test_it_shows_the_mask_the_tokens_the_plan_and_starts_nothing(tiny, tmp_path):
    done = preflight(tiny, f"runs={quoted(tmp_path / 'runs')}", "train.steps=3")
    assert done.returncode == 0, done.stderr
    assert (
        "the loss is on what stands between [[ and ]]" in done.stdout
        and '[[{"cancer_type":' in done.stdout
        and "<|im_end|>]]" in done.stdout
    )
    assert "--- 32 rows, " in done.stdout and "every answer ends with '<|im_end|>'" in done.stdout
    headings = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"steps", "memory", "numbers", "time"} <= headings
    assert "steps    3 steps x 8 rows = " in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (("lora.rr=2",), "there is no setting `lora.rr`", "`lora.r`"),
        (("lora.r=0",), "lora.r is 0", "more than 0"),
        (("lora.r=8,16",), "lora.r", "`inv sweep -- lora.r=8,16`"),
        (("data.max_length=50",), "more than data.max_length=50", "`data.too_long=drop`"),
        (("data.train=none.jsonl",), "data.train names none.jsonl, and there is no such file", "`data.train=FILE.jsonl`"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_a_hint(tiny, words, what, hint):
    done = preflight(tiny, *words)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    error, _, rest = done.stderr.partition("\n\nhint: ")
    assert error.startswith("error: ") and what in error and hint in rest


def test_a_broken_row_is_named_by_its_line(tiny, tmp_path):
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    done = preflight(tiny, f"data.validation={quoted(rows)}")
    assert done.returncode == 1 and f"{rows}:2: the line is not JSON" in done.stderr and "Traceback" not in done.stderr
