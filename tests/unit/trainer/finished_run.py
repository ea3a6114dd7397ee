"""A run folder as a trainer leaves it, made of nothing, for the tests of what is done with a finished run."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from conf import load, schema
from trainer.record.record import Record

RUN_ID = "20261122T010203Z-quickstart-ab12"
FIELDS = ["cancer_type", "stage", "gene_mutation"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


def settings(*words: str) -> schema.Recipe:
    run = load.load(["cloud=twin", "quant=nf4", *words])
    run.run_id = RUN_ID
    run.data.fields = FIELDS
    return run


def score(macro_f1: float, exact: float) -> dict:
    return {
        "kind": "extraction",
        "rows": 32,
        "json_valid": 0.96875,
        "schema_valid": 0.9375,
        "macro_f1": macro_f1,
        "row_exact": exact,
        "hallucination": 1 - macro_f1,
        "stopped": 1.0,
        "fields": {
            name: {
                "precision": macro_f1,
                "recall": macro_f1,
                "f1": macro_f1 * 0.9**n,
                "support": 32,
                "interval": [macro_f1 * 0.8 * 0.9**n, macro_f1 * 1.05 * 0.9**n],
            }
            for n, name in enumerate(FIELDS)
        },
        "distractor_hit": (1 - macro_f1) / 2,
        "slices": {
            "phenomenon": {"negation": {"rows": 9, "macro_f1": macro_f1 * 0.8, "row_exact": exact / 2}},
            "length": {"51 to 100 words": {"rows": 32, "macro_f1": macro_f1, "row_exact": exact}},
        },
        "intervals": {"macro_f1": [macro_f1 * 0.9, min(1, macro_f1 * 1.1)], "row_exact": [exact * 0.8, exact], "json_valid": [0.9, 1.0]},
    }


METRICS = {
    "task": "extraction",
    "rows": 32,
    "split": "validation",
    "base": score(0.1234567, 0.0),
    "tuned": score(0.7654321, 0.46875),
    "difference": {"macro_f1": {"value": 0.64, "interval": [0.58, 0.7]}, "fields": {"stage": {"value": 0.6, "interval": [0.5, 0.7]}}},
    "step": 16,
    "completion_loss": {"base": 1.89, "tuned": 0.3},
    "seconds": {"load": 4.0, "train": 160.0, "evaluate": 24.0},
}

FACTS = {
    "data": {"train": "a" * 64, "validation": "b" * 64, "train_rows": 400, "validation_rows": 64},
    "model": {"id": MODEL, "revision": COMMIT},
    "versions": {"torch": "2.13.0", "peft": "0.21.2"},
    "seconds": {"load": 4.0, "train": 160.0, "evaluate": 24.0},
    "peak_memory": 2_100_000_000,
    "tokens": 51234,
    "precision": "fp32, as this CPU only emulates bf16, base weights in 4-bit NF4",
}


def prediction(number: int, base: str, tuned: str, text: str = "A note.") -> dict:
    expected = {"cancer_type": "lung", "stage": "IV", "gene_mutation": None}
    prompt = [{"role": "user", "content": f"Give the facts as JSON.\n\nNote {number}. {text}"}]
    return {"id": f"validation.jsonl:{number}", "prompt": prompt, "expected": json.dumps(expected), "base": base, "tuned": tuned}


PREDICTIONS = [
    prediction(1, "The patient has lung cancer.", '{"cancer_type":"Lung","stage":"IV","gene_mutation":null}'),
    prediction(
        2, '{"cancer_type":"skin","stage":"II","gene_mutation":"EGFR"}', '{"cancer_type":"lung","stage":"IIB","gene_mutation":null}'
    ),
    prediction(3, "<img src=x>", '{"cancer_type":"lung","stage":"<b>IV</b>","gene_mutation":null}', "<script>alert(1)</script>"),
]


def unsealed(folder: Path, run: schema.Recipe) -> Record:
    """A run with all its work done and its seal still to come."""
    record = Record(folder)
    (folder / "config.yaml").write_text(load.dump(run))
    record.phase("running")
    for step in range(1, 17):
        record.event(
            "step",
            **{"step": step, "steps": 16, "epoch": step / 25, "loss": 1.9 * 0.89**step, "lr": 2e-3, "grad_norm": 1.0},
            **{"tok_s": 310 + step, "mfu": None, "mem": 1_900_000_000 + 10_000_000 * step},
        )
        if step % 8 == 0:
            record.event("eval", step=step, loss=1.95 * 0.89**step, token_match=0.5 + step / 40, field_match=step / 25)
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": run.model.id, "revision": COMMIT, "r": 16}))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    (adapter / "tokenizer.json").write_text("{}")
    (adapter / "tokenizer_config.json").write_text("{}")
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    (adapter / "README.md").write_text("a stub that PEFT writes")
    (adapter / "training_args.bin").write_bytes(b"not for the Hub")
    (folder / "checkpoints" / "step-000016").mkdir(parents=True)
    (folder / "checkpoints" / "step-000016" / "optimizer.pt").write_bytes(b"not for the Hub")
    (folder / "log.txt").write_text("a line\n")
    record.metrics(METRICS)
    record.predictions(PREDICTIONS)
    return record


def sealed(folder: Path, run: schema.Recipe, **facts) -> Path:
    """The run of these settings, sealed with these facts besides the usual ones."""
    unsealed(folder, run).seal(run, FACTS | {"model": {"id": run.model.id, "revision": COMMIT}} | facts)
    return folder


def finished(folder: Path) -> Path:
    """A sealed run of the usual settings."""
    shutil.copytree(Path(_usual().name), folder, dirs_exist_ok=True)
    return folder


@cache
def _usual() -> tempfile.TemporaryDirectory:
    place = tempfile.TemporaryDirectory()
    sealed(Path(place.name), settings())
    return place
