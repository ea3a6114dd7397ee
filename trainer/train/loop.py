"""Training: rows in a fixed order, a step at a time, until the last step.

A step's loss is the sum over all its supervised tokens divided by their number, however many packs it takes. Everything that
a step needs follows from its number, so a run that resumes after a kill -9 ends with the same bytes as an uninterrupted one.
A run that is asked to stop finishes its step and saves it. It resumes there, with the evaluation that was due.
"""

import hashlib
import math
import time
from collections.abc import Callable
from functools import partial

import torch
from peft import PeftModel

from conf.problem import Problem
from conf.schema import BestMetric, Recipe
from trainer.estimate import memory
from trainer.estimate.shape import Shape
from trainer.evaluate import eval_step
from trainer.model import attention, model
from trainer.model.distributed import ProcessGroup
from trainer.model.kernels import Kernels
from trainer.model.packing import packs
from trainer.record.record import Record
from trainer.record.trackers import start_trackers
from trainer.rows.prompt import Example
from trainer.rows.sampler import Sampler
from trainer.train import optimizer as optimizers
from trainer.train.checkpoint import CheckpointStore, Progress
from trainer.train.signals import StopRequest

SHOWN = 16  # rows that an error names


def train(
    tuned: PeftModel,
    sampler: Sampler,
    held_out: list[Example],
    settings: Recipe,
    store: CheckpointStore,
    record: Record,
    processes: ProcessGroup,
    scorer: Callable,
    kernels: Kernels = Kernels(),  # noqa: B008 (frozen)
) -> Progress:
    """Train to the last step. The best step is among the checkpoints; `scorer` scores where `train.metric_for_best_model` asks for it."""
    last, optimizer = sampler.total_steps(settings.train), optimizers.build(tuned, settings.train)
    with (
        attention.for_pack_tokens(tuned.get_base_model(), settings.train.pack_tokens, kernels.attention),
        StopRequest(handled=processes.is_main_process) as stop,
    ):
        progress = store.resume(tuned, optimizer)
        trackers = start_trackers(record.folder, settings, progress.step) if processes.is_main_process else []
        try:
            if progress.step == 0:
                progress.base_loss = _base_loss(tuned, held_out, settings, record, trackers, processes)
            else:
                print(f"going on after step {progress.step} of {last}", flush=True)
                if progress.changed:
                    print(f"note: {progress.changed}", flush=True)
                    record.event("formats", formats=progress.formats)
            progress_reporter, started = (
                ProgressReporter(progress.step, last, partial(_mfu, model.shape_of_model(tuned), settings, processes)),
                time.monotonic() - progress.seconds,
            )
            while progress.due or not progress.over:
                if not progress.due:  # else it was stopped between a step and its evaluation
                    with stop.deferred():
                        step = progress.step + 1
                        rows = sampler.batch(step)
                        lr = optimizers.learning_rate(step, last, settings.train)
                        figures = training_step(step, rows, tuned, optimizer, lr, settings, processes, kernels.loss)
                        figures["epoch"] = sampler.epoch(step)
                        progress.step, progress.tokens, progress.due = step, progress.tokens + sum(map(len, rows)), True
                        progress_reporter.report(record, trackers, figures, rows)
                        progress.seconds, stop_requested = processes.broadcast((time.monotonic() - started, stop.requested))
                        progress.over = step == last or progress.seconds >= (settings.train.max_hours or math.inf) * 3600
                        if stop_requested:
                            stop.requested = True  # in all processes, after the same step
                evaluate_and_save(progress, tuned, optimizer, held_out, settings, store, record, trackers, processes, scorer, stop)
        except KeyboardInterrupt:
            raise _save_interrupted(progress, last, tuned, optimizer, store, processes) from None
        finally:
            for tracker in trackers:
                tracker.close()
    return progress


def _base_loss(
    tuned: PeftModel, held_out: list[Example], settings: Recipe, record: Record, trackers: list, processes: ProcessGroup
) -> float:
    """The base model's loss on held-out rows; a new adapter changes nothing yet, an earlier one is switched off for it."""
    initial_loss = evaluate_loss(tuned, held_out, settings, 0, record, trackers, processes)
    if not settings.lora.adapter:
        return initial_loss
    with tuned.disable_adapter():
        return eval_step.measure(tuned, held_out, settings.train.pack_tokens, None, record.heartbeat, processes)["loss"]


def training_step(
    step: int,
    rows: list[Example],
    tuned: PeftModel,
    optimizer: torch.optim.Optimizer,
    lr: float,
    settings: Recipe,
    processes: ProcessGroup,
    loss_of: Callable = model.loss,
) -> dict[str, float]:
    """One optimizer step. It reads from the device once, before the weights change."""
    tuned.train()
    optimizer.zero_grad()
    _seed_step(settings.seed, step, processes)
    supervised = sum(row.learned for row in rows)
    total = torch.zeros((), device=tuned.device)
    own = packs(processes.shard(rows), settings.train.pack_tokens)
    for pack in own:
        pack_loss = loss_of(tuned, pack, settings.train.neftune_noise_alpha) / supervised
        pack_loss.backward()
        total += pack_loss.detach()
    if processes.lockstep:
        _pass_idly(tuned, rows, len(own), settings, processes)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    _all_reduce_gradients(processes, total, weights)
    norm = torch.nn.utils.clip_grad_norm_(weights, settings.train.max_grad_norm)
    loss, size = torch.stack([total, norm]).tolist()
    if not (math.isfinite(loss) and math.isfinite(size)):
        raise _not_finite(step, rows, tuned, loss)
    optimizers.set_lr(optimizer, lr)
    optimizer.step()
    return {"step": step, "loss": loss, "lr": lr, "grad_norm": size}


def evaluate_and_save(
    progress: Progress,
    tuned,
    optimizer,
    held_out: list[Example],
    settings: Recipe,
    store: CheckpointStore,
    record: Record,
    trackers,
    processes,
    scorer,
    stop,
) -> None:
    """Evaluate and save where the settings say; always at the last step, and always save the best step so far."""
    step, train = progress.step, settings.train
    result = None
    if step % train.eval_steps == 0 or progress.over:
        result = _evaluate(tuned, held_out, settings, step, record, trackers, processes, scorer)
    with stop.deferred():
        better = False
        if result is not None:
            loss, score = result
            better = score > progress.best_score or not progress.best_step
            progress.waited = 0 if better else progress.waited + 1
            progress.over = progress.over or (
                train.early_stopping_patience is not None and progress.waited >= train.early_stopping_patience
            )
            if better:
                progress.best_step, progress.best_loss, progress.best_score = step, loss, score
        progress.due = False
        if processes.is_main_process and (better or step % train.save_steps == 0 or progress.over):
            store.save(progress, tuned, optimizer)


def _evaluate(
    tuned, held_out, settings: Recipe, step: int, record: Record, trackers, processes: ProcessGroup, scorer: Callable
) -> tuple[float, float]:
    """The loss on held-out rows, and the score that decides about the best step: more is better."""
    loss = evaluate_loss(tuned, held_out, settings, step, record, trackers, processes)
    if settings.train.metric_for_best_model is BestMetric.loss:
        return loss, -loss
    score = scorer()
    record.event("score", step=step, macro_f1=score)
    print(f"step {step}: macro-F1 of generated answers {score:.4f}", flush=True)
    for tracker in trackers:
        tracker.log({"eval/macro_f1": score}, step)
    return loss, score


def evaluate_loss(
    tuned: PeftModel, examples: list[Example], settings: Recipe, step: int, record: Record, trackers: list, processes: ProcessGroup
) -> float:
    """Evaluate the held-out rows, and return the mean loss of their answer tokens."""
    figures = eval_step.measure(tuned, examples, settings.train.pack_tokens, settings.data.fields, record.heartbeat, processes)
    if not math.isfinite(figures["loss"]):
        raise _eval_not_finite(step, examples, tuned, figures["loss"])  # no later loss would be lower: it would stay the best to the end
    record.event("eval", step=step, **figures)
    for tracker in trackers:
        tracker.log({f"eval/{name}": value for name, value in figures.items() if isinstance(value, float)}, step)
    fields_text = f"; whole fields right {figures['field_match']:.0%}" if figures.get("field_match") is not None else ""
    print(
        f"step {step}: loss on held-out rows {figures['loss']:.4f}; next-token accuracy {figures['token_match']:.0%}{fields_text}",
        flush=True,
    )
    return figures["loss"]


def _save_interrupted(
    progress: Progress, last: int, tuned: PeftModel, optimizer, store: CheckpointStore, processes: ProcessGroup
) -> Problem:
    """Save the interrupted step, unless it is saved already; the Problem says where the run resumes."""
    if progress.step == 0:
        hint = "`inv train` starts it again, unless `inv stop-run` has ended the run for good"
        return Problem("the trainer was ended from outside before its first step", hint, "killed")
    if processes.is_main_process and store.newest != progress.step:
        store.save(progress, tuned, optimizer)
    what = f"the trainer was ended from outside after step {progress.step} of {last}, which is saved"
    print(what, flush=True)
    return Problem(what, "`inv train` goes on from there, unless `inv stop-run` has ended the run for good", "killed")


class ProgressReporter:
    """Reports speed, MFU and the time left."""

    def __init__(self, first_step: int, last_step: int, mfu: Callable[[list[Example], float], float | None]):
        self.first_step, self.last_step, self.mfu = first_step, last_step, mfu
        self.spent = 0.0
        self.step_started = time.monotonic()

    def report(self, record: Record, trackers: list, figures: dict[str, float], rows: list[Example]) -> None:
        seconds = time.monotonic() - self.step_started
        self.spent += seconds
        step = int(figures["step"])
        eta = self.spent / (step - self.first_step) * (self.last_step - step)
        speed, mfu = sum(map(len, rows)) / seconds, self.mfu(rows, seconds)
        record.event(
            "step",
            **figures,
            **{
                "steps": self.last_step,
                "tok_s": round(speed, 1),
                "mfu": mfu and float(f"{mfu:.3g}"),
                "mem": model.peak_memory(),
                "eta": round(eta, 1),
            },
        )
        for tracker in trackers:
            tracker.log({f"train/{name}": value for name, value in figures.items() if name != "step"} | {"train/tok_s": speed}, step)
        print(f"step {step}/{self.last_step}  loss {figures['loss']:.4f}  {speed:.0f} tokens/s  {eta:.0f} s left", flush=True)
        self.step_started = time.monotonic()


def _mfu(shape: Shape | None, settings: Recipe, processes: ProcessGroup, rows: list[Example], seconds: float) -> float | None:
    supervised = sum(row.learned for row in rows)
    return memory.mfu(shape, settings, sum(map(len, rows)), supervised, seconds, model.gpu_name(), processes.world_size)


def _seed_step(seed: int, step: int, processes: ProcessGroup) -> None:
    """Seed dropout and noise from the step; each process has its own rows, and its own seed."""
    digest = hashlib.sha256(f"{seed} {step} {processes.rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7]))


def _pass_idly(tuned: PeftModel, rows: list[Example], own: int, settings: Recipe, processes: ProcessGroup) -> None:
    """Pass through the model as often as the process with the most packs; it changes no gradient."""
    counts = [len(packs(share, settings.train.pack_tokens)) for share in processes.shares(rows)]
    shortest = min(rows, key=len)
    for pack in packs([shortest], len(shortest)) * (max(counts) - own):
        (model.loss(tuned, pack) * 0).backward()


def _all_reduce_gradients(processes: ProcessGroup, total: torch.Tensor, weights: list[torch.Tensor]) -> None:
    for weight in weights:
        if weight.grad is None:  # more processes than rows
            weight.grad = torch.zeros_like(weight)
    processes.all_reduce([total, *(weight.grad for weight in weights if weight.grad is not None)])


def _not_finite(step: int, rows: list[Example], tuned: PeftModel, value: float) -> Problem:
    what = f"the loss of step {step} is {value}" if not math.isfinite(value) else f"a gradient of step {step} is not finite"
    return Problem(
        f"{what}; {_rows_without_finite_loss(rows, tuned)}", "look at those rows; if they are sound, lower `train.lr`", "non_finite_loss"
    )


def _eval_not_finite(step: int, rows: list[Example], tuned: PeftModel, value: float) -> Problem:
    what = f"the loss on held-out rows after step {step} is {value}; {_rows_without_finite_loss(rows, tuned)}"
    return Problem(what, "look at those rows; if they are sound, lower `train.lr`", "non_finite_loss")


@torch.no_grad()
def _rows_without_finite_loss(rows: list[Example], tuned: PeftModel) -> str:
    """The first few rows without a finite loss."""
    alone = {row.row.id: model.loss(tuned, pack).item() for row in rows for pack in packs([row], len(row))}
    broken = [name for name, loss in alone.items() if not math.isfinite(loss)]
    names = broken or list(alone)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"the rows {shown} have no finite loss" if broken else f"its rows are {shown}"
