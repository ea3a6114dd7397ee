"""Whether a run fits into a memory: what `train.gradient_checkpointing=auto` becomes, and which settings would make it fit.

All of it follows from the memory plan. Only settings that leave the result as it is are offered first: computing activations
again, smaller packs. A quantised base comes behind them, because it changes what is trained.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from conf.problem import Problem
from conf.schema import Quant, Quantisation, Recipe
from trainer.estimate import memory
from trainer.estimate.shape import Shape
from trainer.rows.sampler import Order

GB = 1e9
STEP = 64  # tokens: a pack's limit is offered in multiples of this

Needs = Callable[[Recipe], int]  # bytes of the fullest step with these settings


@dataclass(frozen=True)
class Room:
    """A memory that a run may have."""

    what: str  # such as NVIDIA L4
    bytes: int  # usable

    def __str__(self) -> str:
        return f"{self.bytes / GB:.1f} GB usable on {self.what}"


def needs_of(model: Shape, order: Order, each: int) -> Needs:
    """What these rows need on this model; `each` are the bytes of a number as it is computed."""
    return lambda settings: sum(memory.fullest(model, settings, order, each).values())


def scoring_of(model: Shape, held_out: list, each: int) -> Needs:
    """What scoring these rows needs on this model, so many at once as the settings say."""
    return lambda settings: sum(memory.scoring(model, settings, held_out, each).values())


def at_once(settings: Recipe, needs: Needs, room: Room) -> Recipe:
    """The settings with as many rows scored at once as fit, `train.eval_batch_size` halved; a Problem where one alone does not."""
    size = settings.train.eval_batch_size
    while size > 1 and needs(_set(settings, eval_batch_size=size)) > room.bytes:
        size //= 2
    planned = _set(settings, eval_batch_size=size)
    if (taken := needs(planned)) > room.bytes:
        raise Problem(
            f"scoring takes {taken / GB:.1f} GB for one row, and there are {room}",
            _offer(planned, needs, room, 0, (_adapter_alone, _quantise)),
            "bad_config",
        )
    return planned


def settle(settings: Recipe, needs: Needs, room: Room, longest: int, known: bool = True, able: bool = True) -> tuple[str, str]:
    """What `train.gradient_checkpointing` is, `auto` decided, and why; a Problem where the run does not fit either way.

    `longest` row, in tokens; `known`: what a layer keeps is counted, not estimated, so that it may all be kept; `able`: the model's class
    can compute activations again.
    """
    plain = needs(_set(settings, gradient_checkpointing="no"))
    chosen = settings.train.gradient_checkpointing
    if chosen == "auto":
        chosen = "no" if not able or (known and plain <= room.bytes) else "yes"
    settings = _set(settings, gradient_checkpointing=chosen)
    taken = needs(settings)
    if taken > room.bytes:
        how = "recomputing activations" if chosen == "yes" else "with all activations kept"
        what = f"the fullest step takes {taken / GB:.1f} GB, {how}, and there are {room}"
        raise Problem(what, _offer(settings, needs, room, longest, (*[_checkpoint] * able, _packs, _quantise)), "bad_config")
    if not able:
        why = "transformers has no gradient checkpointing for this class"
        return chosen, f"{why}; with all activations kept it is about {taken / GB:.1f} GB of {room}"
    if not known:
        why = "the model is not made like a Llama, and what its layers would keep is an estimate"
        return chosen, f"{why}; {taken / GB:.1f} GB of {room} as it is"
    why = f"with all activations kept the fullest step takes {plain / GB:.1f} GB of {room}"
    return chosen, f"{why}; {taken / GB:.1f} GB as it is" if chosen == "yes" else why


def _offer(settings: Recipe, needs: Needs, room: Room, longest: int, changes: tuple) -> str:
    """The changes that would make it fit, each alone; else all that help, together; else how large a card must be."""
    changes = [change for change in changes if change(settings, needs, room, longest)]
    alone = [change(settings, needs, room, longest) for change in changes]
    fitting = [f"`{words}` ({needs(changed) / GB:.1f} GB)" for words, changed in alone if needs(changed) <= room.bytes]
    if fitting:
        return "set " + ", or ".join(fitting)
    words, changed = [], settings
    for change in changes:
        word, changed = change(changed, needs, room, longest)
        words.append(word)
        if needs(changed) <= room.bytes:
            return f"set `{' '.join(words)}` ({needs(changed) / GB:.1f} GB)"
    least = f"even with `{' '.join(words)}` it takes {needs(changed) / GB:.1f} GB" if words else "no setting makes it smaller"
    return f"{least}: take a box with a larger card, `box.instance_type=TYPE`, or a smaller model, `model.id=OWNER/NAME`"


def _checkpoint(settings: Recipe, *_) -> tuple[str, Recipe] | None:
    if settings.train.gradient_checkpointing == "yes":
        return None
    return "train.gradient_checkpointing=yes", _set(settings, gradient_checkpointing="yes")


def _packs(settings: Recipe, needs: Needs, room: Room, longest: int) -> tuple[str, Recipe] | None:
    """The largest packs that fit, or a row each where none do."""
    limit = settings.train.pack_tokens
    if limit is None or limit <= longest:
        return None
    few, many = longest // STEP, -(-limit // STEP)  # the first may fit, the last does not
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if needs(_set(settings, pack_tokens=middle * STEP)) <= room.bytes else (few, middle)
    value = few * STEP if few * STEP > longest else None
    return f"train.pack_tokens={'null' if value is None else value}", _set(settings, pack_tokens=value)


def _quantise(settings: Recipe, *_) -> tuple[str, Recipe] | None:
    if settings.quant.kind is Quantisation.nf4:
        return None
    return "quant=nf4", replace(settings, quant=Quant(Quantisation.nf4, True))


def _adapter_alone(settings: Recipe, *_) -> tuple[str, Recipe] | None:
    if not settings.publish.merged:
        return None
    return "publish.merged=false", replace(settings, publish=replace(settings.publish, merged=False))


def _set(settings: Recipe, **values) -> Recipe:
    return replace(settings, train=replace(settings.train, **values))
