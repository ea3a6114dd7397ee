"""The whole job, read top to bottom: settings, rows, model, loop, evaluation, record."""

import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

from conf import load
from conf.schema import Recipe
from trainer import checkpoint, evaluate, loop, merge, model, prompt, rows
from trainer.record import Record

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def run(settings: Recipe, folder: Path, record: Record, begun: float) -> None:
    """Fine-tune, score and record one model in `folder`. `begun` is when the process did, by the monotonic clock."""
    clock = Clock(begun)
    training, held_out = rows.read(settings.data, folder)
    torch.manual_seed(settings.seed)
    record.event("progress", what="loading model", done=0, of=1)
    base = model.load(settings.model, settings.quant)
    tuned = model.adapt(base, settings.lora, settings.train.recompute)
    template = prompt.Prompt(base.tokenizer, base.stops)
    examples = template.examples(training.rows, settings.data)
    scored = template.examples(held_out.rows[: settings.data.eval_rows], settings.data)
    record.event("progress", what="loading model", done=1, of=1)
    print(prompt.show(template, examples), flush=True)
    clock.lap("load")

    identity = load.fingerprint(settings) + training.sha256 + held_out.sha256 + str(base.revision)
    store = checkpoint.Store(folder / "checkpoints", identity, settings.train.keep)
    progress = loop.train(tuned, examples, scored, settings, store, record)
    store.restore(progress.best_step, tuned)
    model.save(tuned, base, settings.model, folder / "adapter")
    clock.lap("train")
    clock.seconds["train"] = round(max(clock.seconds["train"], progress.seconds), 2)  # an interrupted run's earlier attempts count

    record.phase("evaluating")
    evaluate.reload(tuned, folder / "adapter")
    scores, answers = evaluate.compare(tuned, base, template, scored, settings, held_out.sha256, folder, record)
    if settings.publish.merged:
        scores["merged"], texts = merge.make(tuned, base, template, scored, settings, folder, record)
        answers = [row | {"merged": text} for row, text in zip(answers, texts, strict=True)]
    record.predictions(answers)
    clock.lap("evaluate")

    record.metrics(
        scores
        | {
            "split": "validation",
            "step": progress.best_step,
            "completion_loss": {"base": progress.base_loss, "tuned": progress.best_loss},
            "instruction": rows.instruction(training.rows),
            "seconds": clock.seconds,
        }
    )
    record.seal(
        settings,
        {
            "model": {"id": settings.model.id, "revision": base.revision},
            "data": {
                "train": training.sha256,
                "validation": held_out.sha256,
                "train_rows": len(training.rows),
                "validation_rows": len(held_out.rows),
            },
            "precision": base.precision,
            "stops": template.stops,
            "tokens": progress.tokens,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "seconds": clock.seconds,
            "peak_memory": model.peak_memory(),
        },
    )


class Clock:
    """Seconds of each part of the work."""

    def __init__(self, begun: float):
        self.seconds: dict[str, float] = {}
        self.last = begun

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self.last, 2)
        self.last = now
        print(f"{part}: {self.seconds[part]:.1f} s", flush=True)
