"""Training: rows in a fixed order, a step at a time, until the last step.

A step's loss is the sum over all its supervised tokens divided by their number, however many packs it takes. Everything that
a step needs follows from its number, so a run that goes on after a kill -9 ends with the same bytes as one that was left alone.
"""

import math
import random
import time

import torch
from peft import PeftModel

from conf.problem import Problem
from conf.schema import Recipe, Schedule, Train
from trainer import attention, glance, model
from trainer.checkpoint import Progress, Store
from trainer.pack import packs
from trainer.prompt import Example
from trainer.record import Record


def train(tuned: PeftModel, examples: list[Example], held_out: list[Example], settings: Recipe, store: Store, record: Record) -> Progress:
    """Train to the last step. The best step, by the loss on held-out rows, is among the checkpoints."""
    train, last = settings.train, steps(settings.train, len(examples))
    weights = [weight for weight in tuned.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=train.lr, weight_decay=train.weight_decay, fused=True)
    with attention.packed(tuned.get_base_model()):
        progress = store.resume(tuned, optimizer)
        if progress.step == 0:
            progress.base_loss = measure(tuned, held_out, settings, 0, record)
        else:
            print(f"going on after step {progress.step} of {last}", flush=True)
        pace, begun = Pace(progress.step, last), time.monotonic() - progress.seconds
        while progress.step < last:
            step = progress.step + 1
            rows = rows_of_step(step, examples, settings)
            figures = take(step, rows, tuned, optimizer, rate(step, last, train), train)
            progress.step, progress.tokens = step, progress.tokens + sum(map(len, rows))
            pace.tell(record, figures | {"epoch": round(step * train.rows_per_step / len(examples), 4)}, sum(map(len, rows)))
            progress.seconds = time.monotonic() - begun
            keep(progress, last, tuned, optimizer, held_out, settings, store, record)
    return progress


def steps(train: Train, rows: int) -> int:
    return train.steps or math.ceil(train.epochs * rows / train.rows_per_step)


def rows_of_step(step: int, examples: list[Example], settings: Recipe) -> list[Example]:
    """Every epoch visits all rows in an order of its own, drawn from the seed; steps run on across the epochs."""
    size = settings.train.rows_per_step
    return [
        examples[_order(len(examples), settings.seed, place // len(examples))[place % len(examples)]]
        for place in range((step - 1) * size, step * size)
    ]


def rate(step: int, last: int, train: Train) -> float:
    """The learning rate of a step: up in a line, then as the schedule says."""
    warm = math.ceil(train.warmup * last)
    if step <= warm:
        return train.lr * step / warm
    done = (step - 1 - warm) / max(last - warm, 1)
    return (
        train.lr
        * {
            Schedule.constant: 1.0,
            Schedule.linear: 1 - done,
            Schedule.cosine: (1 + math.cos(math.pi * done)) / 2,
        }[train.schedule]
    )


def take(step: int, rows: list[Example], tuned: PeftModel, optimizer: torch.optim.Optimizer, lr: float, train: Train) -> dict[str, float]:
    """One optimizer step. The device is asked once, before the weights change."""
    tuned.train()
    optimizer.zero_grad()
    supervised = sum(len(row.completion) for row in rows)
    total = torch.zeros((), device=tuned.device)
    for pack in packs(rows, train.pack_tokens):
        part = model.loss(tuned, pack) / supervised
        part.backward()
        total += part.detach()
    weights = optimizer.param_groups[0]["params"]
    norm = torch.nn.utils.clip_grad_norm_(weights, train.clip)
    value, size = torch.stack([total, norm]).tolist()
    if not (math.isfinite(value) and math.isfinite(size)):
        raise _not_finite(step, rows, tuned, value)
    optimizer.param_groups[0]["lr"] = lr
    optimizer.step()
    return {"step": step, "loss": value, "lr": lr, "grad_norm": size}


def keep(progress: Progress, last: int, tuned, optimizer, held_out: list[Example], settings: Recipe, store: Store, record: Record) -> None:
    """Measure and save where the settings say; always at the last step, and always at a step that is the best so far."""
    step, best, train = progress.step, False, settings.train
    if step % train.eval_every == 0 or step == last:
        found = measure(tuned, held_out, settings, step, record)
        best = found < progress.best_loss or not progress.best_step
        if best:
            progress.best_step, progress.best_loss = step, found
    if best or step % train.save_every == 0 or step == last:
        store.save(progress, tuned, optimizer)


def measure(tuned: PeftModel, examples: list[Example], settings: Recipe, step: int, record: Record) -> float:
    """Measure the held-out rows, and return the mean loss of their answer tokens."""
    found = glance.measure(tuned, examples, settings.train.pack_tokens, settings.data.fields, record.beat)
    record.event("eval", step=step, **found)
    told = f", fields {found['field_match']:.3f}" if found.get("field_match") is not None else ""
    print(f"step {step}: loss on held-out rows {found['loss']:.4f}; put first: tokens {found['token_match']:.3f}{told}", flush=True)
    return found["loss"]


class Pace:
    """Tells how fast it goes, and how long it will take."""

    def __init__(self, done: int, last: int):
        self.first, self.last = done, last
        self.spent = 0.0
        self.begun = time.monotonic()

    def tell(self, record: Record, figures: dict[str, float], tokens: int) -> None:
        seconds = time.monotonic() - self.begun
        self.spent += seconds
        step = int(figures["step"])
        eta = self.spent / (step - self.first) * (self.last - step)
        speed = tokens / seconds
        record.event("step", **figures, steps=self.last, tok_s=round(speed, 1), mfu=None, mem=model.peak_memory(), eta=round(eta, 1))
        print(f"step {step}/{self.last}  loss {figures['loss']:.4f}  {speed:.0f} tokens/s  {eta:.0f} s left", flush=True)
        self.begun = time.monotonic()


def _order(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


@torch.no_grad()
def _not_finite(step: int, rows: list[Example], tuned: PeftModel, value: float) -> Problem:
    alone = {row.row.id: model.loss(tuned, pack).item() for row in rows for pack in packs([row], len(row))}
    broken = [name for name, loss in alone.items() if not math.isfinite(loss)]
    what = f"the loss of step {step} is {value}" if not math.isfinite(value) else f"a gradient of step {step} is not finite"
    where = f"the rows {', '.join(broken)} have no finite loss" if broken else f"its rows are {', '.join(alone)}"
    return Problem(f"{what}; {where}", "look at those rows; if they are sound, lower `train.lr`", "non_finite_loss")
