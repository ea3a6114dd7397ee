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
from trainer.export import architectures, vocabulary
from trainer.model import attention, lora_options, model, proof, serving
from trainer.record import trackers
from trainer.record.record import Record
from trainer.rows import description, prompt, rows
from trainer.rows.sampler import Sampler, WeightedRows
from trainer.train import checkpoint, earlier_adapter, gguf_export, loop, merge, optimizer
from trainer.train.distributed import NullRecord, ProcessGroup

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def run(settings: Recipe, folder: Path, record: Record | NullRecord, started: float, processes: ProcessGroup) -> None:
    """Fine-tune, score and record one model in `folder`. `started` is when the process did, by the monotonic clock."""
    clock = StageTimer(started)
    optimizer.optimizer_class(settings.train)
    model.adapter_config(settings.lora)
    lora_options.check_merged(settings)
    initial_adapter = earlier_adapter.find(settings.lora, folder)
    trackers.check_trackers(settings.train.report_to)
    training, held_out = rows.read(settings.data, folder)
    record.event("progress", what="loading model", done=0, of=1)
    files, _ = model.fetch(settings.model)
    config = model.config(files)
    architecture.check_quantised_once(settings, config)
    verdict = architecture.verdict(settings.model.id, config)
    architecture.check_gradient_checkpointing(settings, verdict)
    architectures.check_gguf(settings, config)
    template = prompt.Prompt(model.load_tokenizer(settings.model.id, files), description.stops(files), settings.data)
    _print_control_tokens(template, training, held_out, settings.data)
    portions = [WeightedRows(template.examples(table.rows, settings.data, settings.data.loss_on), table.weight) for table in training]
    sampler = Sampler(portions, settings.seed, settings.train.batch_size)
    validation = template.held_out(held_out.rows, settings.data)
    scored = validation[: settings.data.eval_rows]
    rows.check_scorable([example.row for example in scored], settings.data.fields)
    limits.check_token_limits(files, sampler.examples, scored, settings.data)
    vocabulary.check_gguf(settings, config, template, [example.row for example in [*scored, *sampler.examples]])
    print(prompt.format_first_row(template, sampler.examples), flush=True)
    if template.warning:
        print(f"note     {template.warning}", flush=True)
    planned, lines, scoring = _plan(files, settings, sampler, scored, processes, verdict.gradient_checkpointing)
    print("\n".join(lines), flush=True)
    if processes.is_main_process:
        record.decide(settings)
    base = replace(model.load(settings.model, settings.quant), tokenizer=template.tokenizer)
    torch.manual_seed(settings.seed)  # of the adapter's initial weights
    tuned = model.add_adapter(base, settings.lora, settings.train.gradient_checkpointing == "yes")
    if initial_adapter:
        earlier_adapter.load(initial_adapter, tuned, base, settings)
    record.event("progress", what="loading model", done=1, of=1)
    served, seconds = serving.verify_generation(tuned, base, template, sampler.examples)
    measured = [*sampler.examples, *scored]
    proved = proof.verify_training(tuned, measured, settings.train, verdict.why if verdict.outcome == "alone" else None)
    proved = processes.broadcast(replace(proved, serving=served, seconds=proved.seconds + seconds))
    record.event("proof", **asdict(proved))
    print(f"proof: {proved.summary}", flush=True)
    clock.lap("load")

    identity = load.fingerprint(settings) + "".join(table.sha256 for table in training) + held_out.sha256 + str(base.revision)
    identity += "".join(initial_adapter.sha256.values()) if initial_adapter else ""
    store = checkpoint.CheckpointStore(folder / "checkpoints", identity, settings.train.save_total_limit, model.number_format(base))
    start = folder / "checkpoints" / "start" if model.changes_base_weights(settings.lora) else None
    if start and processes.is_main_process:
        model.save_initial_adapter(tuned, start)
    scorer = make_scorer(tuned, base, template, scored, scoring, record)
    progress = loop.train(tuned, sampler, scored, proved.apply(settings), store, record, processes, scorer)
    if not processes.is_main_process:
        return
    store.restore(progress.best_step, tuned)
    model.save(tuned, base, settings.model, folder / "adapter", start)
    clock.lap("train")
    clock.seconds["train"] = round(max(clock.seconds["train"], progress.seconds), 2)  # an interrupted run's earlier attempts count

    if start:  # the base weights were changed: score the exported adapter on the original ones
        base = replace(model.load(settings.model, settings.quant), tokenizer=base.tokenizer)
        tuned = PeftModel.from_pretrained(base.model, folder / "adapter", is_trainable=True)
    record.phase("evaluating")
    evaluate.reload_adapter(tuned, folder / "adapter")
    scores, answers = evaluate.compare(tuned, base, template, scored, scoring, held_out.sha256, folder, record)
    learned = [row for table in training for row in table.rows]
    details = {
        "split": "validation",
        "step": progress.best_step,
        "completion_loss": {"base": progress.base_loss, "tuned": progress.best_loss},
        "instruction": rows.shared_instruction(learned),
        "opening": rows.shared_turns(learned),
        "tools": rows.shared_tools(learned),
    }
    record.metrics(scores | details | {"seconds": clock.seconds})  # merging may run out of memory or disk: the scores are written before
    record.predictions(answers)
    if settings.publish.merged:
        scores["merged"], texts = merge.merge_best(tuned, base, template, scored, scoring, folder, record)
        answers = [row | {"merged": text} for row, text in zip(answers, texts, strict=True)]
        record.predictions(answers)
    if settings.publish.gguf:
        merged_scores = scores["merged"]["forms"][scores["merged"]["chosen"]]
        record.metrics(scores | details | {"seconds": clock.seconds})
        scores["gguf"], texts = gguf_export.export(folder / "merged", base, template, scored, scoring, record, (merged_scores, texts))
        record.predictions([row | {"gguf": texts[index] if texts else None} for index, row in enumerate(answers)])
    clock.lap("evaluate")
    record.metrics(scores | details | {"seconds": clock.seconds})
    record.seal(
        settings,
        {
            "model": {"id": settings.model.id, "revision": base.revision},
            "data": {
                "train": training[0].sha256,
                "also": {source: table.sha256 for source, table in zip(settings.data.also, training[1:], strict=True)},
                "validation": held_out.sha256,
                **_counts(training, sampler, progress.best_step, held_out, validation, len(scored)),
            },
            "precision": base.precision,
            "formats": progress.changed,
            "proof": asdict(proved) | {"told": proved.summary},
            "stops": template.stops,
            "answers_behind": template.opening,
            "stored": architecture.stored_quantisation(config),
            "earlier": initial_adapter.facts if initial_adapter else None,
            "tokens": progress.tokens,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "seconds": clock.seconds,
            "peak_memory": model.peak_memory(),
            "plan": planned,
        },
    )


def _print_control_tokens(template: prompt.Prompt, training: list[rows.Table], held_out: rows.Table, data: Data) -> None:
    """Print which control tokens of the model are in rows' texts."""
    for setting, table in zip(["data.train", *["data.also"] * len(data.also), "data.validation"], [*training, held_out], strict=True):
        for line in template.notes(table.rows):
            print(f"note     {setting}: {line}", flush=True)


def _counts(training: list, sampler: Sampler, steps: int, held_out: rows.Table, validation: list, scored: int) -> dict:
    """How many rows there were, how many were trained on and scored, and how many were left out."""
    return {
        "train_rows": len(sampler.examples),
        "train_rows_seen": sampler.rows_seen(steps),
        "train_rows_left_out": sum(len(table.rows) for table in training) - len(sampler.examples),
        "validation_rows": len(validation),
        "validation_rows_scored": scored,
        "validation_rows_left_out": len(held_out.rows) - len(validation),
    }


def _plan(
    files: Path, settings: Recipe, sampler: Sampler, scored: list, processes: ProcessGroup, able: bool
) -> tuple[dict, list[str], Recipe]:
    """The plan for the record and in lines, and the settings to score with; a Problem where the run does not fit.

    `train.gradient_checkpointing=auto` is decided; `able`: the model's class supports it.
    """
    shape, available, number_bytes = (
        model.shape_of_config(settings.model.id, files),
        model.available_memory(),
        model.bytes_per_number(model.device()),
    )
    train, why, scoring = (
        settings.train,
        "this machine does not say how much memory is free" if shape else "the model's tensors show no layers",
        settings,
    )
    if shape and available:
        needs = fit.training_need(shape, sampler, number_bytes)
        train.gradient_checkpointing, why = processes.broadcast(
            fit.decide_gradient_checkpointing(settings, needs, available, sampler.longest, shape.like_llama, able)
        )
        scoring = fit.fit_eval_batch_size(settings, fit.scoring_need(shape, scored, number_bytes), available)
    if train.gradient_checkpointing == "auto":
        train.gradient_checkpointing = "yes" if able else "no"  # the safe choice
    if shape is None:
        return {"recompute": train.gradient_checkpointing, "why": why}, [f"memory and time are not planned: {why}"], settings
    plan = memory.make_plan(shape, scoring, sampler, scored, model.gpu_name(), number_bytes)
    lines = [*summary.lines(plan, settings, shape, model.gpu_name(), available, why), *summary.notes(plan)]
    planned = {"planned_memory": plan.memory, "planned_scoring": plan.scoring}
    return {"recompute": train.gradient_checkpointing, "why": why} | planned, lines, scoring


def make_scorer(
    tuned: PeftModel, base: model.BaseModel, template: prompt.Prompt, scored: list, settings: Recipe, record: Record
) -> Callable:
    """A function that generates answers with the current weights, and returns their macro-F1 over fields."""

    def macro_f1() -> float:
        with attention.unpacked(base.model, base.attention):
            models_own = base.model.generation_config
            model.use_greedy_decoding(base, template.stops)
            answers = evaluate.generate(tuned, template, scored, settings, record, "scoring a step")
            base.model.generation_config = models_own
        texts, stopped = [text for text, _ in answers], [ended for _, ended in answers]
        return score(texts, [example.row for example in scored], stopped, settings.data.fields, settings.seed)["macro_f1"]

    return macro_f1


class StageTimer:
    """Seconds of each stage."""

    def __init__(self, started: float):
        self.seconds: dict[str, float] = {}
        self.last = started

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self.last, 2)
        self.last = now
        print(f"{part}: {self.seconds[part]:.1f} s", flush=True)
