"""What a run will need, in words: the lines of `inv plan`, and of the trainer's log before it starts."""

import math

from conf import schema
from trainer.estimate import memory
from trainer.estimate.fit import GB, Room
from trainer.estimate.memory import Plan
from trainer.estimate.shape import Shape

ESTIMATED = "activations and workspace are estimated: the model is not made like a Llama"


def lines(
    made: Plan, settings: schema.Recipe, model: Shape, gpu: str | None, room: Room | None, why: str, disk: float | None = None
) -> list[str]:
    """The plan, a line for each thing that can go wrong; `why` tells of `train.gradient_checkpointing`."""
    told = [
        _steps(made, settings, model, disk),
        _memory(made, room, model),
        f"         train.gradient_checkpointing={settings.train.gradient_checkpointing}: {why}",
    ]
    told.append(_scoring(made, settings, room))
    told += [_precision(settings, gpu), *_time(made)]
    return told


def notes(made: Plan) -> list[str]:
    """What the plan says that has to be known."""
    return [f"note     {note}" for note in made.notes]


def _steps(made: Plan, settings: schema.Recipe, model: Shape, disk: float | None) -> str:
    train = settings.train
    room = memory.disk(model, settings, memory.base(model, schema.Quant(schema.Quantisation.none, False), 2))
    of = f" of {disk:.0f}" if disk else ""
    return (
        f"steps    {made.steps} of {train.batch_size} rows; measured every {train.eval_steps}, saved every {train.save_steps}; "
        f"checkpoints and models take {room / GB:.1f}{of} GB of disk"
    )


def _memory(made: Plan, room: Room | None, model: Shape) -> str:
    about, why = ("", "") if model.like_llama else ("about ", f" ({ESTIMATED})")
    return f"memory   {about}{made.bytes / GB:.1f} GB{f' of {room}' if room else ''} in the fullest step{why}: {_parts(made.memory)}"


def _scoring(made: Plan, settings: schema.Recipe, room: Room | None) -> str:
    asked = settings.train.eval_batch_size
    fewer = f" (train.eval_batch_size={asked} do not fit)" if made.eval_batch_size < asked else ""
    taken = f"{sum(made.scoring.values()) / GB:.1f} GB{f' of {room}' if room else ''}"
    return f"scoring  {taken} for {made.eval_batch_size} rows at once{fewer}: {_parts(made.scoring)}"


def _parts(memory: dict[str, int]) -> str:
    return "  ".join(f"{name} {size / GB:.2f}" for name, size in memory.items())


def _precision(settings: schema.Recipe, gpu: str | None) -> str:
    stored = "4-bit NF4" if settings.quant.kind is schema.Quantisation.nf4 else "not quantised"
    computed = "bf16 where the card has it (fp16 would overflow), else fp32" if gpu else "fp32, or bf16 where the CPU has it"
    return f"numbers  base weights {stored}; computed in {computed}; the adapter in fp32"


def _time(made: Plan) -> list[str]:
    if any(math.isnan(seconds) for seconds in made.seconds.values()):
        return [f"time     unknown: {made.assumed}"]
    parts = "  ".join(f"{name} {clock(seconds)}" for name, seconds in made.seconds.items())
    return [f"time     about {clock(sum(made.seconds.values()))}: {parts}", f"         at {made.assumed}; loading comes on top"]


def clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"
