"""Whether a run fits into a memory: what `train.gradient_checkpointing=auto` becomes, and which settings would make it fit.

All of it follows from the memory plan. Settings that do not change the result come first: gradient checkpointing,
smaller packs. A quantised base comes after them, because it changes what is trained.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from conf.problem import Problem
from conf.schema import Quant, Quantisation, Recipe
from trainer.estimate import memory
from trainer.estimate.shape import Shape
from trainer.rows.sampler import Sampler

GB = 1e9
STEP = 64  # tokens: suggested limits of a pack are multiples of this

MemoryNeed = Callable[[Recipe], int]  # peak bytes of all steps with these settings


@dataclass(frozen=True)
class AvailableMemory:
    """Memory that a run may use."""

    what: str  # such as NVIDIA L4
    bytes: int  # usable

    def __str__(self) -> str:
        return f"{self.bytes / GB:.1f} GB usable on {self.what}"


def training_need(model: Shape, sampler: Sampler, number_bytes: int, cards: int = 1) -> MemoryNeed:
    """What these rows need on this model, on each card; `number_bytes` is the size of a number in the format of computation."""
    return lambda settings: sum(memory.peak_memory(model, settings, sampler, number_bytes, cards).values())


def scoring_need(model: Shape, held_out: list, number_bytes: int, cards: int = 1) -> MemoryNeed:
    """What scoring these rows needs on this model, in batches of `train.eval_batch_size`, on each card."""
    return lambda settings: sum(memory.scoring_memory(model, settings, held_out, number_bytes, cards).values())


@dataclass(frozen=True)
class Needs:
    """What a run needs on each of its cards, and what there is."""

    training: MemoryNeed
    scoring: MemoryNeed
    available: AvailableMemory
    cards: int


def decide(
    settings: Recipe, needs: Needs, longest: int, exact: bool, can_checkpoint: bool, stored: str | None
) -> tuple[Recipe, Recipe, str]:
    """The settings with `train.fsdp` and `train.gradient_checkpointing` decided, the same to score with, and why; a Problem where the run
    does not fit. Weights are cut up over the cards only where one does not hold them. `stored`: how they are stored quantised.
    """
    obstacle, asked = fsdp_obstacle(settings, needs.cards, stored), settings.train.fsdp
    if asked == "yes" and obstacle:
        raise obstacle
    if asked != "yes":
        try:
            return _decide(_set(settings, fsdp="no"), needs, longest, exact, can_checkpoint)
        except Problem as problem:
            if asked == "no" or needs.cards == 1:
                raise
            if obstacle:
                raise Problem(f"{problem.what}; {obstacle.what}", f"{obstacle.hint}; or {problem.hint}", problem.reason) from None
    trained, scored, why = _decide(_set(settings, fsdp="yes"), needs, longest, exact, can_checkpoint)
    return trained, scored, f"{why}; the base weights are cut up over {needs.cards} cards (FSDP2)"


def _decide(settings: Recipe, needs: Needs, longest: int, exact: bool, can_checkpoint: bool) -> tuple[Recipe, Recipe, str]:
    chosen, why = decide_gradient_checkpointing(settings, needs.training, needs.available, longest, exact, can_checkpoint)
    settings = _set(settings, gradient_checkpointing=chosen)
    return settings, fit_eval_batch_size(settings, needs.scoring, needs.available), why


def fsdp_obstacle(settings: Recipe, cards: int, stored: str | None) -> Problem | None:
    """Why the base weights cannot be cut up over the cards with these settings; None where they can."""
    start = str(settings.lora.options.get("init_lora_weights"))
    obstacles = [
        (cards == 1, "there is one process", "`train.fsdp=no`; or take more: `train.processes=2`"),
        (stored is not None, f"the model is stored quantised ({stored})", "name the model that it was made from, with `quant=nf4`"),
        (settings.train.neftune_noise_alpha > 0, "NEFTune's noise needs the whole embedding", "`train.neftune_noise_alpha=0`"),
        (start.startswith(("pissa", "olora")), f"init_lora_weights={start} needs the whole model", "`lora.options.init_lora_weights=true`"),
        (settings.publish.merged, "a merged model is made of the whole model", _adapter_alone_words(settings)),
    ]
    return next((Problem(f"the base weights cannot be cut up over cards: {why}", hint) for true, why, hint in obstacles if true), None)


def fit_eval_batch_size(settings: Recipe, needs: MemoryNeed, available: AvailableMemory) -> Recipe:
    """The settings with as many rows scored at once as fit, `train.eval_batch_size` halved; a Problem where one alone does not."""
    size = settings.train.eval_batch_size
    while size > 1 and needs(_set(settings, eval_batch_size=size)) > available.bytes:
        size //= 2
    planned = _set(settings, eval_batch_size=size)
    if (required := needs(planned)) > available.bytes:
        raise Problem(
            f"scoring takes {required / GB:.1f} GB for one row, and there are {available}",
            _hint(planned, needs, available, 0, (_adapter_alone, _quantise)),
            "bad_config",
        )
    return planned


def decide_gradient_checkpointing(
    settings: Recipe, needs: MemoryNeed, available: AvailableMemory, longest: int, exact: bool = True, can_checkpoint: bool = True
) -> tuple[str, str]:
    """What `train.gradient_checkpointing` is, `auto` decided, and why; a Problem where the run does not fit either way.

    `longest` row, in tokens; `exact`: activations are counted, not estimated, so all of them may be kept; `can_checkpoint`: the model's
    class can compute activations again.
    """
    plain = needs(_set(settings, gradient_checkpointing="no"))
    chosen = settings.train.gradient_checkpointing
    if chosen == "auto":
        chosen = "no" if not can_checkpoint or (exact and plain <= available.bytes) else "yes"
    settings = _set(settings, gradient_checkpointing=chosen)
    required = needs(settings)
    if required > available.bytes:
        how = "recomputing activations" if chosen == "yes" else "with all activations kept"
        what = f"the fullest step takes {required / GB:.1f} GB, {how}, and there are {available}"
        raise Problem(what, _hint(settings, needs, available, longest, (*[_checkpoint] * can_checkpoint, _packs, _quantise)), "bad_config")
    if not can_checkpoint:
        why = "transformers has no gradient checkpointing for this class"
        return chosen, f"{why}; with all activations kept it is about {required / GB:.1f} GB of {available}"
    if not exact:
        why = "what the layers of this architecture would keep is an estimate"
        return chosen, f"{why}; {required / GB:.1f} GB of {available} as it is"
    why = f"with all activations kept the fullest step takes {plain / GB:.1f} GB of {available}"
    return chosen, f"{why}; {required / GB:.1f} GB as it is" if chosen == "yes" else why


def _hint(settings: Recipe, needs: MemoryNeed, available: AvailableMemory, longest: int, changes: tuple) -> str:
    """The changes that would make it fit, each alone; else all that help, together; else how large a card must be."""
    possible = [change for change in changes if change(settings, needs, available, longest)]
    alone = [change(settings, needs, available, longest) for change in possible]
    fitting = [f"`{overrides}` ({needs(changed) / GB:.1f} GB)" for overrides, changed in alone if needs(changed) <= available.bytes]
    if fitting:
        return "set " + ", or ".join(fitting)
    overrides, changed = [], settings
    for change in possible:
        override, changed = change(changed, needs, available, longest)
        overrides.append(override)
        if needs(changed) <= available.bytes:
            return f"set `{' '.join(overrides)}` ({needs(changed) / GB:.1f} GB)"
    least = f"even with `{' '.join(overrides)}` it takes {needs(changed) / GB:.1f} GB" if overrides else "no setting makes it smaller"
    return f"{least}: take a box with a larger card, `box.instance_type=TYPE`, or a smaller model, `model.id=OWNER/NAME`"


def _checkpoint(settings: Recipe, *_) -> tuple[str, Recipe] | None:
    if settings.train.gradient_checkpointing == "yes":
        return None
    return "train.gradient_checkpointing=yes", _set(settings, gradient_checkpointing="yes")


def _packs(settings: Recipe, needs: MemoryNeed, available: AvailableMemory, longest: int) -> tuple[str, Recipe] | None:
    """The largest packs that fit, or a row each where none do."""
    limit = settings.train.pack_tokens
    if limit is None or limit <= longest:
        return None
    few, many = longest // STEP, -(-limit // STEP)  # the first may fit, the last does not
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if needs(_set(settings, pack_tokens=middle * STEP)) <= available.bytes else (few, middle)
    value = few * STEP if few * STEP > longest else None
    return f"train.pack_tokens={'null' if value is None else value}", _set(settings, pack_tokens=value)


def _quantise(settings: Recipe, *_) -> tuple[str, Recipe] | None:
    if settings.quant.kind is Quantisation.nf4:
        return None
    return "quant=nf4", replace(settings, quant=Quant(Quantisation.nf4, True))


def _adapter_alone(settings: Recipe, *_) -> tuple[str, Recipe] | None:
    if not settings.publish.merged:
        return None
    return _adapter_alone_words(settings).strip("`"), replace(settings, publish=replace(settings.publish, merged=False, gguf=None))


def _adapter_alone_words(settings: Recipe) -> str:
    return "`publish.merged=false" + " publish.gguf=null" * bool(settings.publish.gguf) + "`"


def _set(settings: Recipe, **values) -> Recipe:
    return replace(settings, train=replace(settings.train, **values))
