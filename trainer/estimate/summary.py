"""What a run will need, in words: the lines of `inv plan`, and of the trainer's log before it starts."""

import math

from conf import schema
from trainer.estimate import memory
from trainer.estimate.fit import GB, AvailableMemory
from trainer.estimate.memory import Plan
from trainer.estimate.shape import Shape

ESTIMATED = "activations and workspace are estimated: what layers of this architecture keep is not known within 10 %"


def lines(
    plan: Plan,
    settings: schema.Recipe,
    model: Shape,
    gpu: str | None,
    available: AvailableMemory | None,
    why: str,
    disk: float | None = None,
) -> list[str]:
    """The plan, a line for each thing that can go wrong; `why` explains `train.gradient_checkpointing`."""
    report = [
        _steps(plan, settings, model, disk),
        _memory(plan, available, model),
        f"         train.gradient_checkpointing={settings.train.gradient_checkpointing}: {why}",
    ]
    report.append(_scoring(plan, settings, available))
    report += [_precision(settings, gpu), *_time(plan)]
    return report


def notes(plan: Plan) -> list[str]:
    """Notes of the plan that the user must know."""
    return [f"note     {note}" for note in plan.notes]


def _steps(plan: Plan, settings: schema.Recipe, model: Shape, disk: float | None) -> str:
    train = settings.train
    room = memory.disk_bytes(model, settings, memory.base_weights(model, schema.Quant(schema.Quantisation.none, False), 2))
    of = f" of {disk:.0f}" if disk else ""
    return (
        f"steps    {plan.visits}; measured every {train.eval_steps}, saved every {train.save_steps}; "
        f"checkpoints and models take {room / GB:.1f}{of} GB of disk"
    )


def _memory(plan: Plan, available: AvailableMemory | None, model: Shape) -> str:
    about, why = ("", "") if model.counted else ("about ", f" ({ESTIMATED})")
    return (
        f"memory   {about}{plan.bytes / GB:.1f} GB{f' of {available}' if available else ''} in the fullest step{why}: {_parts(plan.memory)}"
    )


def _scoring(plan: Plan, settings: schema.Recipe, available: AvailableMemory | None) -> str:
    requested = settings.train.eval_batch_size
    fewer = f" (train.eval_batch_size={requested} do not fit)" if plan.eval_batch_size < requested else ""
    needed = f"{sum(plan.scoring.values()) / GB:.1f} GB{f' of {available}' if available else ''}"
    return f"scoring  {needed} for {plan.eval_batch_size} rows at once{fewer}: {_parts(plan.scoring)}"


def _parts(memory: dict[str, int]) -> str:
    return "  ".join(f"{name} {size / GB:.2f}" for name, size in memory.items())


def _precision(settings: schema.Recipe, gpu: str | None) -> str:
    stored = "4-bit NF4" if settings.quant.kind is schema.Quantisation.nf4 else "not quantised"
    computed = "bf16 where the card has it (fp16 would overflow), else fp32" if gpu else "fp32, or bf16 where the CPU has it"
    return f"numbers  base weights {stored}; computed in {computed}; the adapter in fp32"


def _time(plan: Plan) -> list[str]:
    if any(math.isnan(seconds) for seconds in plan.seconds.values()):
        return [f"time     unknown: {plan.assumed}"]
    parts = "  ".join(f"{name} {clock(seconds)}" for name, seconds in plan.seconds.items())
    return [f"time     about {clock(sum(plan.seconds.values()))}: {parts}", f"         at {plan.assumed}; loading comes on top"]


def clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"
