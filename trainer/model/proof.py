"""Before the first step, on the very model and device: a row in a pack gives what it gives alone, and every trained weight learns.

Two short rows, cut from the run's own, are computed alone in the model's own attention and together in a pack. Then the pack's first
row is changed: the second one must not notice. The gradients of the pack are computed behind a measurement and those of the rows
before it, so nothing that computing without gradients changes in the model goes unseen.

Where packing does not hold, rows are trained one at a time, which is exact by definition. What does not hold then either stops the run.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from peft import PeftModel

from conf.problem import Problem
from conf.schema import Recipe, Train
from trainer.model import attention, model
from trainer.model.packing import Pack, packs
from trainer.rows.prompt import Example

OWN, SHARED = 16, 4  # tokens of a row, and of the beginning that the rows share
# Relative differences that rounding alone explains; 0.05 was seen in the gradients of SmolLM2 in bf16 (30 layers). Where rows see each
# other, gradients are off by 0.2 to 1, and a neighbour's change moves a row by 0.02 or more (75 architectures).
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.15}
SAME_SHAPES = {torch.float32: 1e-4, torch.bfloat16: 0.01}  # the same sums of the same numbers; experts may be reordered
NAMED = 3  # weights that are named where something is wrong with them


@dataclass(frozen=True)
class Proof:
    packs: bool  # whether rows may share a pack
    why: str  # in words
    differences: dict[str, float]  # relative: what was compared, and how far it was off
    seconds: float
    longest: int = 0  # tokens of the longest row that it holds for; longer ones may attend otherwise
    serving: str = ""  # what was shown of prompt and stop token, in words

    @property
    def told(self) -> str:
        """The proof in a line."""
        figures = ", ".join(f"{what} {difference:.2g}" for what, difference in self.differences.items())
        return f"{self.why} (relative differences: {figures})" + f"; {self.serving}" * bool(self.serving)

    def applied(self, settings: Recipe) -> Recipe:
        """The settings to train with: without packs where they do not hold."""
        return settings if self.packs else replace(settings, train=replace(settings.train, pack_tokens=None))


class Leak(Exception):
    """Why rows must not share a pack."""


def prove(tuned: PeftModel, examples: list[Example], train: Train, refusal: str | None = None) -> Proof:
    """Whether this model may be trained in packs; a Problem if it cannot be trained at all. `refusal`: why packs are not even tried."""
    begun, base = time.monotonic(), tuned.get_base_model()
    rows = _cut(examples, base.config)
    longest = max(map(len, examples))
    refusal = refusal or (None if train.pack_tokens else "train.pack_tokens=null")
    with _awake(tuned):
        alone = _alone(tuned, rows, train.neftune_noise_alpha)
        _causal(tuned, rows[1], alone[0][1])
        differences, refusal = _in_a_pack(tuned, rows, longest, alone) if refusal is None else ({}, refusal)
        if refusal:
            differences |= _measured(tuned, rows, alone)
    seconds = time.monotonic() - begun
    if refusal:
        return Proof(False, f"rows are trained one at a time: {refusal}", differences, seconds, longest)
    return Proof(True, "rows in a pack give what they give alone", differences, seconds, longest)


def _alone(tuned: PeftModel, rows: list[Example], noise: float) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """The logits of each row and the gradients of all, in the model's own attention; a Problem where training is not possible."""
    kind = type(tuned.get_base_model()).__name__
    try:
        found = _gradients(tuned, packs(rows, None))
        if noise:
            model.loss(tuned, packs(rows[:1], None)[0], noise)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        what = f"{kind} cannot be trained on one row of this run: {type(error).__name__}: {_first_line(error)}"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable") from error
    numbers = [*found[0], *(gradient for gradient in found[1].values() if gradient is not None)]
    if not all(torch.isfinite(values).all() for values in numbers):
        what = f"{kind} gives numbers that are not finite for a row of this run"
        raise Problem(what, "choose another model: `model.id=owner/name`, or `quant=none`", "non_finite_loss")
    without = [name for name, gradient in found[1].items() if _none(gradient) and ".experts." not in name]
    if without:
        what = f"{len(without)} of {len(found[1])} trained weights get no gradient, {', '.join(without[:NAMED])} among them"
        raise Problem(what, "name the layers that learn, as in 'lora.targets=[q_proj,v_proj]'")
    return found


def _causal(tuned: PeftModel, row: Example, logits: torch.Tensor) -> None:
    """A Problem where a token sees those behind it: such a model would be shown the answer that it is to learn."""
    kind, another = type(tuned.get_base_model()).__name__, replace(row, completion=[*row.completion[:-1], _other(row.completion[-1])])
    difference = _difference(_logits(tuned, packs([another], None)[0]), [logits])
    if not difference <= SAME_SHAPES[tuned.get_base_model().dtype]:
        what = f"{kind} lets a token see the ones behind it: it is no model that writes from left to right"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable")


def _in_a_pack(tuned: PeftModel, rows: list[Example], longest: int, alone: tuple) -> tuple[dict[str, float], str | None]:
    """How far the rows in a pack are from the rows alone, and why they must not share one."""
    base, differences = tuned.get_base_model(), {}
    try:
        with attention.packed(base):
            others = attention.running(base) - {attention.PACKED}
            if others:
                raise Leak(f"{type(base).__name__} keeps its own attention ({', '.join(sorted(others))})")
            (pack,) = packs(rows, sum(map(len, rows)))
            second = _logits(tuned, pack)[1]
            changed = _logits(tuned, _with_another_first_row(pack, longest))[1]
            differences["a neighbour's change"] = _difference([changed], [second])
            found, gradients = _gradients(tuned, [pack])
            differences["logits in a pack"] = _difference(found, alone[0])
            differences["gradients in a pack"] = _difference(gradients.values(), alone[1].values())
    except Leak as leak:
        return differences, str(leak)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        return differences, f"{type(base).__name__} takes no packs ({type(error).__name__}: {_first_line(error)})"
    for what, difference in differences.items():
        limit = (SAME_SHAPES if what == "a neighbour's change" else ROUNDING)[base.dtype]
        if not difference <= limit:
            return differences, f"packed, {type(base).__name__} gives another result ({what}: {difference:.2g} off, {limit:g} is rounding)"
    return differences, None


def _measured(tuned: PeftModel, rows: list[Example], alone: tuple) -> dict[str, float]:
    """How far the gradients behind a measurement are from those before it; a Problem where that is more than rounding."""
    for each in packs(rows, None):
        _logits(tuned, each)
    difference = _difference(_gradients(tuned, packs(rows, None))[1].values(), alone[1].values())
    if not difference <= ROUNDING[tuned.get_base_model().dtype]:
        what = f"a measurement changes the gradients of {type(tuned.get_base_model()).__name__}: they are {difference:.2g} off behind it"
        raise Problem(what, "keep the base weights plain: `quant=none`", "crashed")
    return {"gradients behind a measurement": difference}


def _gradients(tuned: PeftModel, each: list[Pack]) -> tuple[list[torch.Tensor], dict[str, torch.Tensor | None]]:
    """The logits of every row and the gradient of every trained weight, as a step computes them."""
    tuned.train()
    tuned.zero_grad(set_to_none=True)
    found = []
    for pack in each:
        logits = model.logits(tuned, pack)
        torch.nn.functional.cross_entropy(logits.float(), pack.labels.to(tuned.device), reduction="sum").backward()
        found += _of_rows(logits.detach(), pack)
    weights = {name: weight for name, weight in tuned.named_parameters() if weight.requires_grad}
    gradients = {name: weight.grad for name, weight in weights.items()}
    tuned.zero_grad(set_to_none=True)
    return found, gradients


@torch.no_grad()
def _logits(tuned: PeftModel, pack: Pack) -> list[torch.Tensor]:
    """The logits of every row, as a measurement computes them."""
    tuned.eval()
    return _of_rows(model.logits(tuned, pack), pack)


def _of_rows(logits: torch.Tensor, pack: Pack) -> list[torch.Tensor]:
    return list(logits.float().split([row.learned for row in pack.rows]))


def _difference(ones, others) -> float:
    """The size of the difference of two lists of tensors, relative to the size of the second; what is missing counts as zeros."""
    pairs = [(one, other) for one, other in zip(ones, others, strict=True) if one is not None or other is not None]
    pairs = [(torch.zeros_like(b) if a is None else a, torch.zeros_like(a) if b is None else b) for a, b in pairs]
    apart, size = (
        torch.stack([each.double().norm() for each in sides]).norm() for sides in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return (apart / size).item()


def _none(gradient: torch.Tensor | None) -> bool:
    return gradient is None or not gradient.any()


def _with_another_first_row(pack: Pack, longest: int) -> Pack:
    """The pack with other tokens in its first row, which stands where the longest row of the run ends."""
    start, end = pack.lengths[0], pack.lengths[0] + pack.lengths[1]
    tokens, positions = pack.tokens.clone(), pack.positions.clone()
    tokens[0, start:end] = torch.tensor([_other(token) for token in tokens[0, start:end].tolist()])
    positions[:, start:end] = torch.arange(longest - pack.lengths[1], longest)
    return replace(pack, tokens=tokens, positions=positions)


def _other(token: int) -> int:
    """Another token that the model surely has."""
    return token - 1 if token else 1


def _cut(examples: list[Example], config) -> list[Example]:
    """Two short rows of different lengths with a common beginning, longer than any window that a row of the run does not fit into."""
    first, second = (sorted(examples, key=len, reverse=True) * 2)[:2]
    windows = [window for window in _windows(config) if window < len(first)]
    one, other = first.prompt + first.completion, second.prompt + second.completion
    alike = len(os.path.commonprefix([one, other]))  # noqa: RUF071 (of tokens, not of paths)
    own = max([OWN, *windows])
    return [_short(first, one, alike, own + SHARED), _short(second, other, alike, own)]


def _short(example: Example, tokens: list[int], alike: int, own: int) -> Example:
    """A row of at most `own` tokens behind a short beginning; the second half of it has loss."""
    rest = tokens[alike:][:own] if len(tokens) - alike >= SHARED else tokens[-own:]
    whole = tokens[: min(alike, SHARED)] + rest
    half = max(len(whole) // 2, 1)
    return Example(example.row, whole[:half], whole[half:])


def _windows(config) -> list[int]:
    """Numbers of tokens beyond which the model attends otherwise, as its configuration states them."""
    values = vars(config.get_text_config())
    return [value for name, value in values.items() if ("window" in name or "chunk" in name) and type(value) is int and value > 1]


@contextmanager
def _awake(tuned: PeftModel) -> Iterator[None]:
    """Within this no weight is without effect, as the zeros are that an adapter starts with, and nothing is left to chance."""
    zeros = [weight for weight in tuned.parameters() if weight.requires_grad and not weight.any()]
    chances = [(module, name, value) for module in tuned.modules() for name, value in vars(module).items() if _chance(module, name, value)]
    draw, training = torch.Generator().manual_seed(0), tuned.training
    try:
        for weight in zeros:
            weight.data.copy_(torch.randn(weight.shape, generator=draw) * 0.02)
        for module, name, _ in chances:
            setattr(module, name, 0.0)
        yield
    finally:
        for weight in zeros:
            weight.data.zero_()
        for module, name, value in chances:
            setattr(module, name, value)
        tuned.train(training)


def _chance(module: torch.nn.Module, name: str, value: object) -> bool:
    """Whether this is a rate at which something is dropped or shaken while training."""
    rate = "drop" in name or "jitter" in name or (name == "p" and isinstance(module, torch.nn.modules.dropout._DropoutNd))
    return rate and type(value) is float and value > 0


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]
