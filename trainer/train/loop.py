"""Training: rows in a fixed order, a step at a time, until the last step.

A step's loss is the sum over all its supervised tokens divided by their number, however many packs it takes. Everything that
a step needs follows from its number, so a run that goes on after a kill -9 ends with the same bytes as one that was left alone.
A run that is asked to stop (`stop`) finishes its step and saves it; it goes on from there, with the measurement that was due.
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
from trainer.model.packing import packs
from trainer.record import trackers
from trainer.record.record import Record
from trainer.rows.prompt import Example
from trainer.rows.sampler import Order
from trainer.train import optimizer
from trainer.train.checkpoint import Progress, Store
from trainer.train.distributed import Team
from trainer.train.signals import Stop

SHOWN = 16  # rows that are named where something is wrong with them


def train(
    tuned: PeftModel, order: Order, held_out: list[Example], settings: Recipe, store: Store, record: Record, team: Team, judge: Callable
) -> Progress:
    """Train to the last step. The best step is among the checkpoints; `judge` scores where `train.metric_for_best_model` asks for it."""
    last, learner = order.steps(settings.train), optimizer.build(tuned, settings.train)
    with attention.taking(tuned.get_base_model(), settings.train.pack_tokens), Stop(obeyed=team.first) as stop:
        progress = store.resume(tuned, learner)
        drawn = trackers.start(record.folder, settings, progress.step) if team.first else []
        try:
            if progress.step == 0:
                progress.base_loss = team.agree(measure(tuned, held_out, settings, 0, record, drawn) if team.first else None)
            else:
                print(f"going on after step {progress.step} of {last}", flush=True)
                if progress.changed:
                    print(f"note: {progress.changed}", flush=True)
                    record.event("formats", formats=progress.formats)
            pace, begun = (
                Pace(progress.step, last, partial(_utilisation, model.sizes_of(tuned), settings, team)),
                time.monotonic() - progress.seconds,
            )
            while progress.due or not progress.over:
                if not progress.due:  # else it was stopped between a step and its measurement
                    with stop.later():
                        step = progress.step + 1
                        rows = order.step(step)
                        rate = optimizer.rate(step, last, settings.train)
                        figures = take(step, rows, tuned, learner, rate, settings, team) | {"epoch": order.epoch(step)}
                        progress.step, progress.tokens, progress.due = step, progress.tokens + sum(map(len, rows)), True
                        pace.tell(record, drawn, figures, rows)
                        progress.seconds, asked = team.agree((time.monotonic() - begun, stop.asked))
                        progress.over = step == last or progress.seconds >= (settings.train.max_hours or math.inf) * 3600
                        if asked:
                            stop.asked = True  # of all processes, behind the same step
                keep(progress, tuned, learner, held_out, settings, store, record, drawn, team, judge, stop)
        except KeyboardInterrupt:
            raise _left(progress, last, tuned, learner, store, team) from None
        finally:
            for tracker in drawn:
                tracker.close()
    return progress


def take(
    step: int, rows: list[Example], tuned: PeftModel, learner: torch.optim.Optimizer, rate: float, settings: Recipe, team: Team
) -> dict[str, float]:
    """One optimizer step. The device is asked once, before the weights change."""
    tuned.train()
    learner.zero_grad()
    _draw_anew(settings.seed, step, team)
    supervised = sum(row.learned for row in rows)
    total = torch.zeros((), device=tuned.device)
    for pack in packs(team.share(rows), settings.train.pack_tokens):
        part = model.loss(tuned, pack, settings.train.neftune_noise_alpha) / supervised
        part.backward()
        total += part.detach()
    weights = [weight for group in learner.param_groups for weight in group["params"]]
    _share_gradients(team, total, weights)
    norm = torch.nn.utils.clip_grad_norm_(weights, settings.train.max_grad_norm)
    value, size = torch.stack([total, norm]).tolist()
    if not (math.isfinite(value) and math.isfinite(size)):
        raise _not_finite(step, rows, tuned, value)
    optimizer.set_rate(learner, rate)
    learner.step()
    return {"step": step, "loss": value, "lr": rate, "grad_norm": size}


def keep(
    progress: Progress, tuned, learner, held_out: list[Example], settings: Recipe, store: Store, record: Record, drawn, team, judge, stop
) -> None:
    """Measure and save where the settings say; always at the last step, and always at a step that is the best so far."""
    step, train = progress.step, settings.train
    found = None
    if step % train.eval_steps == 0 or progress.over:
        found = team.agree(_judged(tuned, held_out, settings, step, record, drawn, judge) if team.first else None)
    with stop.later():
        better = found is not None and (found[1] > progress.best_score or not progress.best_step)
        if found is not None:
            progress.waited = 0 if better else progress.waited + 1
            progress.over = progress.over or (
                train.early_stopping_patience is not None and progress.waited >= train.early_stopping_patience
            )
        if better:
            progress.best_step, (progress.best_loss, progress.best_score) = step, found
        progress.due = False
        if team.first and (better or step % train.save_steps == 0 or progress.over):
            store.save(progress, tuned, learner)


def _judged(tuned, held_out, settings: Recipe, step: int, record: Record, drawn, judge: Callable) -> tuple[float, float]:
    """The loss on held-out rows, and the score that decides about the best step: more is better."""
    loss = measure(tuned, held_out, settings, step, record, drawn)
    if settings.train.metric_for_best_model is BestMetric.loss:
        return loss, -loss
    score = judge()
    record.event("score", step=step, macro_f1=score)
    print(f"step {step}: macro-F1 of generated answers {score:.4f}", flush=True)
    for tracker in drawn:
        tracker.log({"eval/macro_f1": score}, step)
    return loss, score


def measure(tuned: PeftModel, examples: list[Example], settings: Recipe, step: int, record: Record, drawn=()) -> float:
    """Measure the held-out rows, and return the mean loss of their answer tokens."""
    found = eval_step.measure(tuned, examples, settings.train.pack_tokens, settings.data.fields, record.beat)
    if not math.isfinite(found["loss"]):
        raise _not_measured(step, examples, tuned, found["loss"])  # it could not be compared: it would stay the best one to the end
    record.event("eval", step=step, **found)
    for tracker in drawn:
        tracker.log({f"eval/{name}": value for name, value in found.items() if isinstance(value, float)}, step)
    told = f", fields {found['field_match']:.3f}" if found.get("field_match") is not None else ""
    print(f"step {step}: loss on held-out rows {found['loss']:.4f}; put first: tokens {found['token_match']:.3f}{told}", flush=True)
    return found["loss"]


def _left(progress: Progress, last: int, tuned: PeftModel, learner, store: Store, team: Team) -> Problem:
    """Save the step that a stop came in, unless it is saved already, and say where the run was left."""
    if progress.step == 0:
        return Problem("the trainer was ended from outside before its first step", "start it again", "killed")
    if team.first and store.newest != progress.step:
        store.save(progress, tuned, learner)
    what = f"the trainer was ended from outside after step {progress.step} of {last}, which is saved"
    print(what, flush=True)
    return Problem(what, "start it again: it goes on from there", "killed")


class Pace:
    """Tells how fast it goes, and how long it will take."""

    def __init__(self, done: int, last: int, utilisation: Callable[[list[Example], float], float | None]):
        self.first, self.last, self.utilisation = done, last, utilisation
        self.spent = 0.0
        self.begun = time.monotonic()

    def tell(self, record: Record, drawn: list, figures: dict[str, float], rows: list[Example]) -> None:
        seconds = time.monotonic() - self.begun
        self.spent += seconds
        step = int(figures["step"])
        eta = self.spent / (step - self.first) * (self.last - step)
        speed, mfu = sum(map(len, rows)) / seconds, self.utilisation(rows, seconds)
        record.event(
            "step",
            **figures,
            **{
                "steps": self.last,
                "tok_s": round(speed, 1),
                "mfu": mfu and float(f"{mfu:.3g}"),
                "mem": model.peak_memory(),
                "eta": round(eta, 1),
            },
        )
        for tracker in drawn:
            tracker.log({f"train/{name}": value for name, value in figures.items() if name != "step"} | {"train/tok_s": speed}, step)
        print(f"step {step}/{self.last}  loss {figures['loss']:.4f}  {speed:.0f} tokens/s  {eta:.0f} s left", flush=True)
        self.begun = time.monotonic()


def _utilisation(sizes: Shape | None, settings: Recipe, team: Team, rows: list[Example], seconds: float) -> float | None:
    supervised = sum(row.learned for row in rows)
    return memory.utilisation(sizes, settings, sum(map(len, rows)), supervised, seconds, model.gpu(), team.size)


def _draw_anew(seed: int, step: int, team: Team) -> None:
    """Let chance (dropout, noise) follow from the step too; each process has its own rows, and its own chance."""
    digest = hashlib.sha256(f"{seed} {step} {team.index}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7]))


def _share_gradients(team: Team, total: torch.Tensor, weights: list[torch.Tensor]) -> None:
    for weight in weights:
        if weight.grad is None:  # more processes than rows
            weight.grad = torch.zeros_like(weight)
    team.add_up([total, *(weight.grad for weight in weights)])


def _not_finite(step: int, rows: list[Example], tuned: PeftModel, value: float) -> Problem:
    what = f"the loss of step {step} is {value}" if not math.isfinite(value) else f"a gradient of step {step} is not finite"
    return Problem(f"{what}; {_broken(rows, tuned)}", "look at those rows; if they are sound, lower `train.lr`", "non_finite_loss")


def _not_measured(step: int, rows: list[Example], tuned: PeftModel, value: float) -> Problem:
    what = f"the loss on held-out rows after step {step} is {value}; {_broken(rows, tuned)}"
    return Problem(what, "look at those rows; if they are sound, lower `train.lr`", "non_finite_loss")


@torch.no_grad()
def _broken(rows: list[Example], tuned: PeftModel) -> str:
    """Which of the rows has no finite loss by itself, the first few of them."""
    alone = {row.row.id: model.loss(tuned, pack).item() for row in rows for pack in packs([row], len(row))}
    broken = [name for name, loss in alone.items() if not math.isfinite(loss)]
    names = broken or list(alone)
    told = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"the rows {told} have no finite loss" if broken else f"its rows are {told}"
