"""The whole job, read top to bottom: settings, rows, model, loop, evaluation, record."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from peft import PeftModel

from conf import load
from conf.schema import Data, Recipe
from data.score import score
from data.scoring import baselines
from trainer.estimate import architecture, fit, limits, memory, summary
from trainer.estimate.architecture import Verdict
from trainer.evaluate import evaluate
from trainer.export import architectures, vocabulary
from trainer.model import attention, lora_options, model, proof, serving, sharding
from trainer.model.distributed import ALONE, NullRecord, ProcessGroup
from trainer.record import gpu, sign_of_life, trackers
from trainer.record.record import Record
from trainer.rows import description, prompt, rows
from trainer.rows.sampler import Sampler, WeightedRows, drawn, with_answer_limit
from trainer.train import checkpoint, earlier_adapter, gguf_export, loop, merge, optimizer

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def run(settings: Recipe, folder: Path, record: Record | NullRecord, started: float, processes: ProcessGroup) -> None:
    """Fine-tune, score and record one model in `folder`. `started` is when the process did, by the monotonic clock."""
    with gpus_sampled(record):
        _run(settings, folder, record, StageTimer(started), processes)


def _run(settings: Recipe, folder: Path, record: Record | NullRecord, clock: "StageTimer", processes: ProcessGroup) -> None:
    _check_settings(settings)
    initial_adapter = earlier_adapter.find(settings.lora, folder)
    training, held_out = rows.read(settings.data, folder)
    record.event("progress", what="loading model", done=0, of=1)
    with sign_of_life.while_computing(record.heartbeat):
        files, _ = model.fetch(settings.model)
    config = model.config(files)
    verdict = _check_model(settings, config)
    inputs = _tokenize(settings, training, held_out, files, config)
    planned, scoring = _plan(files, settings, inputs, processes, verdict.gradient_checkpointing)
    if processes.is_main_process:
        record.decide(settings)
    with sign_of_life.while_computing(record.heartbeat):
        base, tuned = _load_model(settings, inputs.template, initial_adapter, processes)
    record.event("progress", what="loading model", done=1, of=1)
    proved = _prove(tuned, base, inputs, settings, verdict, processes)
    record.event("proof", **asdict(proved))
    print(f"proof: {proved.summary}", flush=True)
    clock.lap("load")

    start = folder / "checkpoints" / "start" if model.changes_base_weights(settings.lora) else None
    if start and processes.is_main_process:
        model.save_initial_adapter(tuned, start)
    identity, limit = _identity(settings, inputs, base, initial_adapter), settings.train.save_total_limit
    store = checkpoint.CheckpointStore(folder / "checkpoints", identity, limit, model.number_format(base, processes.world_size))
    scorer = make_scorer(tuned, base, inputs.template, inputs.scored, scoring, record, processes)
    progress = loop.train(tuned, inputs.sampler, inputs.scored, proved.apply(settings), store, record, processes, scorer, proved.kernels)
    if processes.is_main_process:
        store.restore(progress.best_step, tuned)
        model.save(tuned, base, settings.model, folder / "adapter", start)
    processes.gather(None)  # the files are there for all
    clock.lap("train")
    clock.seconds["train"] = round(max(clock.seconds["train"], progress.seconds), 2)  # an interrupted run's earlier attempts count

    if start:  # the base weights were changed: score the exported adapter on the original ones
        base = replace(model.load(settings.model, settings.quant), tokenizer=base.tokenizer)
        tuned = PeftModel.from_pretrained(base.model, folder / "adapter", is_trainable=True)
    record.phase("evaluating")
    scores, answers = _score(tuned, base, inputs, scoring, folder, record, processes)
    if not processes.is_main_process:
        return
    metrics = _score_published(tuned, base, inputs, scores, answers, progress, scoring, folder, record, clock)
    clock.lap("evaluate")
    record.metrics(metrics | {"seconds": clock.seconds})
    record.seal(
        settings,
        {
            "model": {"id": settings.model.id, "revision": base.revision},
            "data": inputs.hashes(settings.data) | inputs.counts(progress.best_step),
            "precision": base.precision,
            "formats": progress.changed,
            "proof": asdict(proved) | {"told": proved.summary},
            "stops": inputs.template.stops,
            "max_new_tokens": settings.data.max_new_tokens,
            "answers_behind": inputs.template.opening,
            "stored": architecture.stored_quantisation(config),
            "earlier": initial_adapter.facts if initial_adapter else None,
            "tokens": progress.tokens,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "seconds": clock.seconds,
            "peak_memory": model.peak_memory(),
            "plan": planned,
        },
    )


@contextmanager
def gpus_sampled(record: Record | NullRecord) -> Iterator[None]:
    """The run's events say what its GPUs do, where it has any."""
    if not torch.cuda.is_available() or not isinstance(record, Record):
        yield
        return
    record.gpus = gpu.Sampler()
    try:
        yield
    finally:
        record.gpus.close()
        record.gpus = None


@dataclass(frozen=True)
class Inputs:
    """The run's rows: as they were read, and in the model's tokens."""

    training: list[rows.Table]
    held_out: rows.Table
    template: prompt.Prompt
    usable: int  # training rows that are not too long; `data.train_rows` may ask for fewer
    sampler: Sampler
    validation: list[prompt.Example]
    scored: list[prompt.Example]  # the first `data.eval_rows` of them

    def hashes(self, data: Data) -> dict:
        also = {source: table.sha256 for source, table in zip(data.also, self.training[1:], strict=True)}
        return {"train": self.training[0].sha256, "also": also, "validation": self.held_out.sha256}

    def counts(self, steps: int) -> dict:
        """How many rows there were, how many were trained on and scored, and how many were left out."""
        return {
            "train_rows": len(self.sampler.examples),
            "train_rows_of": self.usable,
            "train_rows_seen": self.sampler.rows_seen(steps),
            "train_rows_left_out": sum(len(table.rows) for table in self.training) - self.usable,
            "validation_rows": len(self.validation),
            "validation_rows_scored": len(self.scored),
            "validation_rows_left_out": len(self.held_out.rows) - len(self.validation),
        }


def _check_settings(settings: Recipe) -> None:
    """A Problem where a library would refuse the settings later, or where a tracker is missing."""
    optimizer.optimizer_class(settings.train)
    model.adapter_config(settings.lora)
    lora_options.check_merged(settings)
    trackers.check_trackers(settings.train.report_to)


def _check_model(settings: Recipe, config: dict) -> Verdict:
    """What is known of the model's class, or a Problem where it cannot be trained with these settings."""
    architecture.check_quantised_once(settings, config)
    verdict = architecture.verdict(settings.model.id, config)
    architecture.check_gradient_checkpointing(settings, verdict)
    architectures.check_gguf(settings, config)
    return verdict


def _tokenize(settings: Recipe, training: list[rows.Table], held_out: rows.Table, files: Path, config: dict) -> Inputs:
    """The rows as the model's template writes them; a Problem where one cannot be trained on or scored."""
    data = settings.data
    template = prompt.Prompt(model.load_tokenizer(settings.model.id, files), description.stops(files), data)
    _print_control_tokens(template, training, held_out, data)
    portions = [WeightedRows(template.examples(table.rows, data, data.loss_on), table.weight) for table in training]
    usable = sum(len(portion.examples) for portion in portions)
    learned = [example for portion in portions for example in portion.examples]
    portions[0] = WeightedRows(drawn(portions[0].examples, data.train_rows, settings.seed))
    sampler = Sampler(portions, settings.seed, settings.train.batch_size)
    validation = template.held_out(held_out.rows, data)
    scored = validation[: data.eval_rows]
    data = settings.data = with_answer_limit(data, [*learned, *scored])
    rows.check_scorable([example.row for example in scored], data.fields)
    limits.check_token_limits(files, sampler.examples, scored, data)
    vocabulary.check_gguf(settings, config, template, [example.row for example in [*scored, *sampler.examples]])
    print(prompt.format_first_row(template, sampler.examples), flush=True)
    if template.warning:
        print(f"note     {template.warning}", flush=True)
    return Inputs(training, held_out, template, usable, sampler, validation, scored)


def _print_control_tokens(template: prompt.Prompt, training: list[rows.Table], held_out: rows.Table, data: Data) -> None:
    """Print which control tokens of the model are in rows' texts."""
    for setting, table in zip(["data.train", *["data.also"] * len(data.also), "data.validation"], [*training, held_out], strict=True):
        for line in template.notes(table.rows):
            print(f"note     {setting}: {line}", flush=True)


def _load_model(
    settings: Recipe, template: prompt.Prompt, initial_adapter: earlier_adapter.EarlierAdapter | None, processes: ProcessGroup
) -> tuple[model.BaseModel, PeftModel]:
    """The base model, and the same with its adapter: a new one, or the one that training goes on from."""
    if settings.train.fsdp != "yes":
        return _load_whole(settings, template, initial_adapter)
    devices = sharding.mesh(model.device(), processes.world_size)
    for rank in range(processes.world_size):  # one after the other: the machine's memory holds one whole model, no card has to
        if rank == processes.rank:
            base, tuned = _load_whole(settings, template, initial_adapter, torch.device("cpu"))
            sharding.shard(tuned, model.device(), devices)
        processes.gather(None)
    processes.lockstep = True
    return base, tuned


def _load_whole(
    settings: Recipe, template: prompt.Prompt, initial_adapter: earlier_adapter.EarlierAdapter | None, target: torch.device | None = None
) -> tuple[model.BaseModel, PeftModel]:
    base = replace(model.load(settings.model, settings.quant, target), tokenizer=template.tokenizer)
    torch.manual_seed(settings.seed)  # of the adapter's initial weights
    tuned = model.add_adapter(base, settings.lora, settings.train.gradient_checkpointing == "yes")
    if initial_adapter:
        earlier_adapter.load(initial_adapter, tuned, base, settings)
    return base, tuned


def _prove(
    tuned: PeftModel, base: model.BaseModel, inputs: Inputs, settings: Recipe, verdict: Verdict, processes: ProcessGroup
) -> proof.Proof:
    """Before the first step, on this very model: generation starts where training does, and packed rows do not see each other."""
    served, seconds = serving.verify_generation(tuned, base, inputs.template, inputs.sampler.examples)
    measured = [*inputs.sampler.examples, *inputs.scored]
    proved = proof.verify_training(tuned, measured, settings.train, verdict.why if verdict.outcome == "alone" else None)
    return processes.broadcast(replace(proved, serving=served, seconds=proved.seconds + seconds))


def _identity(settings: Recipe, inputs: Inputs, base: model.BaseModel, initial_adapter: earlier_adapter.EarlierAdapter | None) -> str:
    """What a checkpoint must have been made with, to be gone on from."""
    hashes = [table.sha256 for table in [*inputs.training, inputs.held_out]]
    adapter = initial_adapter.sha256.values() if initial_adapter else []
    return "".join([load.fingerprint(settings), *hashes, str(base.revision), *adapter])


def _score(
    tuned: PeftModel, base: model.BaseModel, inputs: Inputs, settings: Recipe, folder: Path, record: Record, processes: ProcessGroup
) -> tuple[dict, list[dict]]:
    """The scores of base and tuned, and all answers, by the adapter that was exported."""
    evaluate.reload_adapter(tuned, folder / "adapter")
    return evaluate.compare(tuned, base, inputs.template, inputs.scored, settings, inputs.held_out.sha256, folder, record, processes)


def _score_published(
    tuned: PeftModel,
    base: model.BaseModel,
    inputs: Inputs,
    scores: dict,
    answers: list[dict],
    progress: checkpoint.Progress,
    settings: Recipe,
    folder: Path,
    record: Record,
    clock: "StageTimer",
) -> dict:
    """Score each form that is published besides the adapter, by its files; all metrics, which the record has already.

    Merging may run out of memory or disk: what is known is written before.
    """
    template, scored = inputs.template, inputs.scored
    learned, fields = [row for table in inputs.training for row in table.rows], settings.data.fields
    trained = [example.row for example in inputs.sampler.examples]
    metrics = scores | {
        "baselines": baselines.beside_a_model(trained, [example.row for example in scored], fields, settings.seed),
        "training": {"rows": len(trained), "empty": rows.empty_counts(trained, fields)},
        "split": "validation",
        "step": progress.best_step,
        "completion_loss": {"base": progress.base_loss, "tuned": progress.best_loss},
        "instruction": rows.shared_instruction(learned),
        "opening": rows.shared_turns(learned),
        "tools": rows.shared_tools(learned),
    }
    record.metrics(metrics | {"seconds": clock.seconds})
    record.predictions(answers)
    if settings.publish.merged:
        metrics["merged"], texts = merge.merge_best(tuned, base, template, scored, settings, folder, record)
        answers = [row | {"merged": text} for row, text in zip(answers, texts, strict=True)]
        record.predictions(answers)
    if settings.publish.gguf:
        merged_scores = metrics["merged"]["forms"][metrics["merged"]["chosen"]]
        record.metrics(metrics | {"seconds": clock.seconds})
        metrics["gguf"], texts = gguf_export.export(folder / "merged", base, template, scored, settings, record, (merged_scores, texts))
        record.predictions([row | {"gguf": texts[index] if texts else None} for index, row in enumerate(answers)])
    return metrics


def _plan(files: Path, settings: Recipe, inputs: Inputs, processes: ProcessGroup, able: bool) -> tuple[dict, Recipe]:
    """Print what the run needs. The plan for the record, and the settings to score with; a Problem where the run does not fit.

    `train.gradient_checkpointing=auto` is decided; `able`: the model's class supports it.
    """
    train, sampler, scoring = settings.train, inputs.sampler, settings
    shape, available = model.shape_of_config(settings.model.id, files), model.available_memory(processes.world_size)
    number_bytes = model.bytes_per_number(model.device())
    why = "this machine does not say how much memory is free" if shape else "the model's tensors show no layers"
    cards, stored = processes.world_size, architecture.stored_quantisation(model.config(files))
    if shape and available:
        needs = fit.Needs(
            fit.training_need(shape, sampler, number_bytes, cards),
            fit.scoring_need(shape, inputs.scored, number_bytes, cards),
            available,
            cards,
        )
        decision = fit.decide(settings, needs, sampler.longest, shape.counted, able, stored)
        trained, scoring, why = processes.broadcast(decision)  # the memory that is free is not the same for all
        train.gradient_checkpointing, train.fsdp = trained.train.gradient_checkpointing, trained.train.fsdp
    elif train.fsdp == "yes" and (obstacle := fit.fsdp_obstacle(settings, cards, stored)):
        raise obstacle
    if train.gradient_checkpointing == "auto":
        train.gradient_checkpointing = "yes" if able else "no"  # the safe choice
    if train.fsdp == "auto":
        train.fsdp = "no"
    decided = {"recompute": train.gradient_checkpointing, "fsdp": train.fsdp, "processes": cards, "why": why}
    if shape is None:
        print(f"memory and time are not planned: {why}", flush=True)
        return decided, settings
    plan = memory.make_plan(shape, scoring, sampler, inputs.scored, model.gpu_name(), number_bytes, cards)
    for line in [*summary.lines(plan, settings, shape, model.gpu_name(), available, why), *summary.notes(plan)]:
        print(line, flush=True)
    return decided | {"planned_memory": plan.memory, "planned_scoring": plan.scoring}, scoring


def make_scorer(
    tuned: PeftModel,
    base: model.BaseModel,
    template: prompt.Prompt,
    scored: list,
    settings: Recipe,
    record: Record,
    processes: ProcessGroup = ALONE,
) -> Callable:
    """A function that generates answers with the current weights, and returns their macro-F1 over fields."""

    def macro_f1() -> float:
        with attention.unpacked(base.model, base.attention):
            models_own = base.model.generation_config
            model.use_greedy_decoding(base, template.stops)
            answers = evaluate.generate(tuned, template, scored, settings, record, "scoring a step", processes=processes)
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
