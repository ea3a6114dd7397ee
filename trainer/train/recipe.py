"""The whole job, read top to bottom: settings, rows, model, loop, evaluation, record."""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
from peft import PeftModel

from conf import load
from conf.schema import Data, Recipe
from data.score import score
from trainer.estimate import architecture, fit, limits, memory, summary
from trainer.evaluate import evaluate
from trainer.model import attention, lora_options, model, proof, serving
from trainer.record import trackers
from trainer.record.record import Record
from trainer.rows import description, prompt, rows
from trainer.rows.sampler import Order, Portion
from trainer.train import checkpoint, loop, merge, optimizer
from trainer.train.distributed import Team

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def run(settings: Recipe, folder: Path, record: Record, begun: float, team: Team) -> None:
    """Fine-tune, score and record one model in `folder`. `begun` is when the process did, by the monotonic clock."""
    clock = Clock(begun)
    optimizer.choose(settings.train)
    model.adapter_config(settings.lora)
    lora_options.check_merged(settings)
    trackers.check(settings.train.report_to)
    training, held_out = rows.read(settings.data, folder)
    record.event("progress", what="loading model", done=0, of=1)
    files, _ = model.fetch(settings.model)
    config = model.config(files)
    architecture.quantised_once(settings, config)
    verdict = architecture.verdict(settings.model.id, config)
    architecture.computes_again(settings, verdict)
    template = prompt.Prompt(model.load_tokenizer(settings.model.id, files), description.stops(files), settings.data)
    _tell_controls(template, training, held_out, settings.data)
    portions = [Portion(template.examples(table.rows, settings.data, settings.data.loss_on), table.weight) for table in training]
    order = Order(portions, settings.seed, settings.train.batch_size)
    kept = template.held_out(held_out.rows, settings.data)
    scored = kept[: settings.data.eval_rows]
    rows.scorable([example.row for example in scored], settings.data.fields)
    limits.check(files, order.examples, scored, settings.data)
    print(prompt.show(template, order.examples), flush=True)
    if template.warning:
        print(f"note     {template.warning}", flush=True)
    planned, lines, scoring = _outlook(files, settings, order, scored, team, verdict.gradient_checkpointing)
    print("\n".join(lines), flush=True)
    if team.first:
        record.decide(settings)
    base = replace(model.load(settings.model, settings.quant), tokenizer=template.tokenizer)
    torch.manual_seed(settings.seed)  # what follows from chance is how the adapter starts
    tuned = model.adapt(base, settings.lora, settings.train.gradient_checkpointing == "yes")
    record.event("progress", what="loading model", done=1, of=1)
    served, seconds = serving.prove(tuned, base, template, order.examples)
    measured = [*order.examples, *scored]
    proved = proof.prove(tuned, measured, settings.train, verdict.why if verdict.outcome == "alone" else None)
    proved = team.agree(replace(proved, serving=served, seconds=proved.seconds + seconds))
    record.event("proof", **asdict(proved))
    print(f"proof: {proved.told}", flush=True)
    clock.lap("load")

    identity = load.fingerprint(settings) + "".join(table.sha256 for table in training) + held_out.sha256 + str(base.revision)
    store = checkpoint.Store(folder / "checkpoints", identity, settings.train.save_total_limit, model.number_format(base))
    start = folder / "checkpoints" / "start" if model.moves_base(settings.lora) else None
    if start and team.first:
        model.save_start(tuned, start)
    judged = judge(tuned, base, template, scored, scoring, record)
    progress = loop.train(tuned, order, scored, proved.applied(settings), store, record, team, judged)
    if not team.first:
        return
    store.restore(progress.best_step, tuned)
    model.save(tuned, base, settings.model, folder / "adapter", start)
    clock.lap("train")
    clock.seconds["train"] = round(max(clock.seconds["train"], progress.seconds), 2)  # an interrupted run's earlier attempts count

    if start:  # the base weights are not what they were: score what was exported, on the base as everybody has it
        base = replace(model.load(settings.model, settings.quant), tokenizer=base.tokenizer)
        tuned = PeftModel.from_pretrained(base.model, folder / "adapter", is_trainable=True)
    record.phase("evaluating")
    evaluate.reload(tuned, folder / "adapter")
    scores, answers = evaluate.compare(tuned, base, template, scored, scoring, held_out.sha256, folder, record)
    learned = [row for table in training for row in table.rows]
    told = {
        "split": "validation",
        "step": progress.best_step,
        "completion_loss": {"base": progress.base_loss, "tuned": progress.best_loss},
        "instruction": rows.instruction(learned),
        "opening": rows.opening(learned),
        "tools": rows.tools(learned),
    }
    record.metrics(scores | told | {"seconds": clock.seconds})  # merging takes memory and disk: what is known is written before
    record.predictions(answers)
    if settings.publish.merged:
        scores["merged"], texts = merge.make(tuned, base, template, scored, scoring, folder, record)
        record.predictions([row | {"merged": text} for row, text in zip(answers, texts, strict=True)])
    clock.lap("evaluate")
    record.metrics(scores | told | {"seconds": clock.seconds})
    record.seal(
        settings,
        {
            "model": {"id": settings.model.id, "revision": base.revision},
            "data": {
                "train": training[0].sha256,
                "also": {source: table.sha256 for source, table in zip(settings.data.also, training[1:], strict=True)},
                "validation": held_out.sha256,
                **_counts(training, order, progress.best_step, held_out, kept, len(scored)),
            },
            "precision": base.precision,
            "formats": progress.changed,
            "proof": asdict(proved) | {"told": proved.told},
            "stops": template.stops,
            "answers_behind": template.opening,
            "stored": architecture.stored(config),
            "tokens": progress.tokens,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "seconds": clock.seconds,
            "peak_memory": model.peak_memory(),
            "plan": planned,
        },
    )


def _tell_controls(template: prompt.Prompt, training: list[rows.Table], held_out: rows.Table, data: Data) -> None:
    """Say which control tokens of the model stand in rows' texts."""
    for setting, table in zip(["data.train", *["data.also"] * len(data.also), "data.validation"], [*training, held_out], strict=True):
        for line in template.notes(table.rows):
            print(f"note     {setting}: {line}", flush=True)


def _counts(training: list, order: Order, steps: int, held_out: rows.Table, kept: list, scored: int) -> dict:
    """How many rows there were, how many of them had a part in the exported weights and in the scores, and what was left out."""
    return {
        "train_rows": len(order.examples),
        "train_rows_seen": order.seen(steps),
        "train_rows_left_out": sum(len(table.rows) for table in training) - len(order.examples),
        "validation_rows": len(kept),
        "validation_rows_scored": scored,
        "validation_rows_left_out": len(held_out.rows) - len(kept),
    }


def _outlook(files: Path, settings: Recipe, order: Order, scored: list, team: Team, able: bool) -> tuple[dict, list[str], Recipe]:
    """The plan as the record keeps it and in lines, and the settings to score with; a Problem where the run does not fit.

    `train.gradient_checkpointing=auto` is decided; `able`: the model's class can compute activations again.
    """
    shape, room, each = model.sizes(settings.model.id, files), model.room(), model.computed(model.device())
    train, why, scoring = settings.train, "nobody can tell here what fits" if shape else "the model's tensors show no layers", settings
    if shape and room:
        needs = fit.needs_of(shape, order, each)
        train.gradient_checkpointing, why = team.agree(fit.settle(settings, needs, room, order.longest, shape.like_llama, able))
        scoring = fit.at_once(settings, fit.scoring_of(shape, scored, each), room)
    if train.gradient_checkpointing == "auto":
        train.gradient_checkpointing = "yes" if able else "no"  # the careful choice
    if shape is None:
        return {"recompute": train.gradient_checkpointing, "why": why}, [f"memory and time are not planned: {why}"], settings
    made = memory.make(shape, scoring, order, scored, model.gpu(), each)
    told = [*summary.lines(made, settings, shape, model.gpu(), room, why), *summary.notes(made)]
    planned = {"planned_memory": made.memory, "planned_scoring": made.scoring}
    return {"recompute": train.gradient_checkpointing, "why": why} | planned, told, scoring


def judge(tuned: PeftModel, base: model.Base, template: prompt.Prompt, scored: list, settings: Recipe, record: Record) -> Callable:
    """Tells the macro-F1 over fields of the answers that the model generates as it is now."""

    def macro_f1() -> float:
        with attention.unpacked(base.model, base.attention):
            models_own = base.model.generation_config
            model.greedy(base, template.stops)
            answers = evaluate.generate(tuned, template, scored, settings, record, "scoring a step")
            base.model.generation_config = models_own
        texts, stopped = [text for text, _ in answers], [ended for _, ended in answers]
        return score(texts, [example.row for example in scored], stopped, settings.data.fields, settings.seed)["macro_f1"]

    return macro_f1


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
