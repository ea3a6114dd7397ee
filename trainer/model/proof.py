"""Checks before the first step, on the run's own model and device: a row in a pack gives the same as alone, and every weight is trained.

Two short rows, cut from the run's own, are computed alone in the model's own attention and together in a pack. Then the pack's first
row is changed: the second one must stay the same. The gradients of the pack are computed after an evaluation and those of the rows
before it, so a change that computing without gradients makes in the model is seen.

Where packing fails, rows are trained one at a time, which is exact by definition. If that fails too, the run stops.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from peft import PeftModel

from conf.problem import Problem
from conf.schema import Recipe, Train
from trainer.model import attention, chunked_loss, model, varlen
from trainer.model.kernels import Kernels
from trainer.model.packing import Pack, on_device, packs
from trainer.rows.prompt import Example

ROW_TOKENS, SHARED_TOKENS = 16, 4  # tokens of a row, and of the beginning that the rows share
# Relative differences that rounding alone explains; 0.05 was seen in the gradients of SmolLM2 in bf16 (30 layers). Where rows see each
# other, gradients are off by 0.2 to 1, and a neighbour's change moves a row by 0.02 or more (75 architectures).
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.15}
SAME_SHAPES = {torch.float32: 1e-4, torch.bfloat16: 0.01}  # the same sums of the same numbers; experts may be reordered
NAMED = 3  # weights that an error names
CHUNK = 4  # tokens of a chunk of the loss: short rows make several


@dataclass(frozen=True)
class Proof:
    packs: bool  # whether rows may share a pack
    why: str  # in words
    differences: dict[str, float]  # relative: what was compared, and how far it was off
    seconds: float
    longest: int = 0  # tokens of the longest row that was checked; longer ones may have other positions
    serving: str = ""  # what was checked of prompt and stop token, in words
    kernels: Kernels = field(default_factory=Kernels)  # what computes attention and loss

    @property
    def summary(self) -> str:
        """The proof in a line."""
        figures = ", ".join(f"{what} {difference:.2g}" for what, difference in self.differences.items())
        return "; ".join(filter(None, [f"{self.why} (relative differences: {figures})", self.kernels.told, self.serving]))

    def apply(self, settings: Recipe) -> Recipe:
        """The settings to train with: without packs where packing failed."""
        return settings if self.packs else replace(settings, train=replace(settings.train, pack_tokens=None))


class PackingError(Exception):
    """Why rows must not share a pack."""


def verify_training(tuned: PeftModel, examples: list[Example], train: Train, refusal: str | None = None) -> Proof:
    """Whether this model may be trained in packs; a Problem if it cannot be trained at all. `refusal`: why packs are not tried."""
    started, base = time.monotonic(), tuned.get_base_model()
    rows = _short_rows(examples, base.config)
    longest = max(map(len, examples))
    refusal = refusal or (None if train.pack_tokens else "train.pack_tokens=null")
    with _deterministic(tuned):
        alone = _compute_alone(tuned, rows, train.neftune_noise_alpha)
        _check_causal(tuned, rows[1], alone[0][1])
        differences, refusal = _compare_packed(tuned, rows, longest, alone, attention.PACKED) if refusal is None else ({}, refusal)
        if refusal:
            differences |= _compare_after_eval(tuned, rows, alone)
        kernels = _choose_kernels(tuned, rows, longest, alone, packed=refusal is None)
    seconds = time.monotonic() - started
    if refusal:
        return Proof(False, f"rows are trained one at a time: {refusal}", differences, seconds, longest, kernels=kernels)
    return Proof(True, "rows in a pack give what they give alone", differences, seconds, longest, kernels=kernels)


def _compute_alone(tuned: PeftModel, rows: list[Example], noise: float) -> tuple[list[torch.Tensor], dict[str, torch.Tensor | None]]:
    """The logits of each row and the gradients of all, in the model's own attention; a Problem where training is not possible."""
    kind = type(tuned.get_base_model()).__name__
    try:
        alone = _gradients(tuned, packs(rows, None))
        if noise:
            model.loss(tuned, packs(rows[:1], None)[0], noise)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        what = f"{kind} cannot be trained on one row of this run: {type(error).__name__}: {_first_line(error)}"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable") from error
    numbers = [*alone[0], *(gradient for gradient in alone[1].values() if gradient is not None)]
    if not all(torch.isfinite(values).all() for values in numbers):
        what = f"{kind} gives numbers that are not finite for a row of this run"
        raise Problem(what, "choose another model: `model.id=owner/name`, or `quant=none`", "non_finite_loss")
    without = [name for name, gradient in alone[1].items() if _is_zero(gradient) and ".experts." not in name]
    if without:
        what = f"{len(without)} of {len(alone[1])} trained weights get no gradient, {', '.join(without[:NAMED])} among them"
        raise Problem(what, "name the layers that learn, as in 'lora.targets=[q_proj,v_proj]'")
    return alone


def _check_causal(tuned: PeftModel, row: Example, logits: torch.Tensor) -> None:
    """A Problem where a token sees later ones: such a model would see the answer that it is trained on."""
    kind, another = type(tuned.get_base_model()).__name__, replace(row, completion=[*row.completion[:-1], _other_token(row.completion[-1])])
    difference = _difference(_logits(tuned, packs([another], None)[0]), [logits])
    if not difference <= SAME_SHAPES[tuned.get_base_model().dtype]:
        what = f"{kind} lets a token see the ones behind it: it is no model that writes from left to right"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable")


def _choose_kernels(tuned: PeftModel, rows: list[Example], longest: int, alone: tuple, packed: bool) -> Kernels:
    """The kernels of a GPU that give what the rows give alone; without one those of every device."""
    base = tuned.get_base_model()
    if not model.has_gpu():
        return Kernels(told="attention row by row, as on every CPU" if packed else "")
    chosen, told = attention.PACKED, []
    if packed:
        why = varlen.refusal(base) or _compare_packed(tuned, rows, longest, alone, varlen.VARLEN)[1]
        chosen = attention.PACKED if why else varlen.VARLEN
        told.append(f"attention row by row: {why}" if why else "attention by varlen_attn")
    why = chunked_loss.refusal(tuned) or _compare_loss(tuned, rows, chosen if packed else None)
    told.append(f"all logits at once: {why}" if why else "loss by linear_cross_entropy")
    return Kernels(chosen, not why, "; ".join(told))


def _compare_loss(tuned: PeftModel, rows: list[Example], implementation: str | None) -> str | None:
    """Why the chunked loss must not be used: another loss or other gradients than those of all logits at once."""
    base, limit = tuned.get_base_model(), sum(map(len, rows)) if implementation else None
    try:
        with attention.for_pack_tokens(base, limit, implementation or attention.PACKED):
            plain = _loss_and_gradients(tuned, packs(rows, limit), model.loss)
            chunked = _loss_and_gradients(tuned, packs(rows, limit), partial(chunked_loss.loss, chunk=CHUNK))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        return f"linear_cross_entropy does not work here ({type(error).__name__}: {_first_line(error)})"
    differences = {"loss": _difference([chunked[0]], [plain[0]]), "gradients": _difference(chunked[1], plain[1])}
    limits = {"loss": SAME_SHAPES[base.dtype], "gradients": ROUNDING[base.dtype]}
    off = [f"{what}: {difference:.2g} off" for what, difference in differences.items() if not difference <= limits[what]]
    return f"linear_cross_entropy gives another result ({', '.join(off)})" if off else None


def _loss_and_gradients(tuned: PeftModel, all_packs: list[Pack], loss: Callable) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    tuned.train()
    tuned.zero_grad(set_to_none=True)
    total = sum(loss(tuned, pack) for pack in all_packs)
    total.backward()
    gradients = [weight.grad for weight in tuned.parameters() if weight.requires_grad]
    tuned.zero_grad(set_to_none=True)
    return total.detach(), gradients


def _compare_packed(
    tuned: PeftModel, rows: list[Example], longest: int, alone: tuple, implementation: str
) -> tuple[dict[str, float], str | None]:
    """How far the rows in a pack are from the rows alone, in this attention, and why they must not share one."""
    base, differences = tuned.get_base_model(), {}
    try:
        with attention.packed(base, implementation):
            other_implementations = attention.implementations(base) - {implementation}
            if other_implementations:
                raise PackingError(f"{type(base).__name__} keeps its own attention ({', '.join(sorted(other_implementations))})")
            (pack,) = packs(rows, sum(map(len, rows)))
            second = _logits(tuned, pack)[1]
            changed = _logits(tuned, _with_another_first_row(pack, longest))[1]
            differences["a neighbour's change"] = _difference([changed], [second])
            logits, gradients = _gradients(tuned, [pack])
            differences["logits in a pack"] = _difference(logits, alone[0])
            differences["gradients in a pack"] = _difference(gradients.values(), alone[1].values())
    except PackingError as leak:
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


def _compare_after_eval(tuned: PeftModel, rows: list[Example], alone: tuple) -> dict[str, float]:
    """How far the gradients after an evaluation are from those before it; a Problem where that is more than rounding."""
    for pack in packs(rows, None):
        _logits(tuned, pack)
    difference = _difference(_gradients(tuned, packs(rows, None))[1].values(), alone[1].values())
    if not difference <= ROUNDING[tuned.get_base_model().dtype]:
        what = f"a measurement changes the gradients of {type(tuned.get_base_model()).__name__}: they are {difference:.2g} off behind it"
        raise Problem(what, "keep the base weights plain: `quant=none`", "crashed")
    return {"gradients behind a measurement": difference}


def _gradients(tuned: PeftModel, all_packs: list[Pack]) -> tuple[list[torch.Tensor], dict[str, torch.Tensor | None]]:
    """The logits of every row and the gradient of every trained weight, as a step computes them."""
    tuned.train()
    tuned.zero_grad(set_to_none=True)
    row_logits = []
    for pack in all_packs:
        logits = model.logits(tuned, pack)
        torch.nn.functional.cross_entropy(logits.float(), on_device(pack.labels, tuned.device), reduction="sum").backward()
        row_logits += _of_rows(logits.detach(), pack)
    weights = {name: weight for name, weight in tuned.named_parameters() if weight.requires_grad}
    gradients = {name: weight.grad for name, weight in weights.items()}
    tuned.zero_grad(set_to_none=True)
    return row_logits, gradients


@torch.no_grad()
def _logits(tuned: PeftModel, pack: Pack) -> list[torch.Tensor]:
    """The logits of every row, as an evaluation computes them."""
    tuned.eval()
    return _of_rows(model.logits(tuned, pack), pack)


def _of_rows(logits: torch.Tensor, pack: Pack) -> list[torch.Tensor]:
    return list(logits.float().split([row.learned for row in pack.rows]))


def _difference(ones, others) -> float:
    """The size of the difference of two lists of tensors, relative to the size of the second; what is missing counts as zeros."""
    pairs = [(one, other) for one, other in zip(ones, others, strict=True) if one is not None or other is not None]
    pairs = [(torch.zeros_like(b) if a is None else a, torch.zeros_like(a) if b is None else b) for a, b in pairs]
    apart, size = (
        torch.stack([tensor.double().norm() for tensor in sides]).norm() for sides in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return (apart / size).item()


def _is_zero(gradient: torch.Tensor | None) -> bool:
    return gradient is None or not gradient.any()


def _with_another_first_row(pack: Pack, longest: int) -> Pack:
    """The pack with other tokens in its first row, at the positions where the longest row of the run ends."""
    start, end = pack.lengths[0], pack.lengths[0] + pack.lengths[1]
    tokens, positions = pack.tokens.clone(), pack.positions.clone()
    tokens[0, start:end] = torch.tensor([_other_token(token) for token in tokens[0, start:end].tolist()])
    positions[:, start:end] = torch.arange(longest - pack.lengths[1], longest)
    return replace(pack, tokens=tokens, positions=positions)


def _other_token(token: int) -> int:
    """Another token of the vocabulary."""
    return token - 1 if token else 1


def _short_rows(examples: list[Example], config) -> list[Example]:
    """Two short rows of different lengths with a common beginning, longer than any window that a row of the run does not fit into."""
    first, second = (sorted(examples, key=len, reverse=True) * 2)[:2]
    windows = [window for window in _windows(config) if window < len(first)]
    one, other = first.prompt + first.completion, second.prompt + second.completion
    alike = len(os.path.commonprefix([one, other]))  # noqa: RUF071 (of tokens, not of paths)
    row_tokens = max([ROW_TOKENS, *windows])
    return [_short_row(first, one, alike, row_tokens + SHARED_TOKENS), _short_row(second, other, alike, row_tokens)]


def _short_row(example: Example, tokens: list[int], alike: int, row_tokens: int) -> Example:
    """A row of at most `row_tokens` tokens after a short beginning; the second half of it has loss."""
    rest = tokens[alike:][:row_tokens] if len(tokens) - alike >= SHARED_TOKENS else tokens[-row_tokens:]
    whole = tokens[: min(alike, SHARED_TOKENS)] + rest
    half = max(len(whole) // 2, 1)
    return Example(example.row, whole[:half], whole[half:])


def _windows(config) -> list[int]:
    """The sizes in tokens of attention windows and chunks in the model's configuration."""
    values = vars(config.get_text_config())
    return [value for name, value in values.items() if ("window" in name or "chunk" in name) and type(value) is int and value > 1]


@contextmanager
def _deterministic(tuned: PeftModel) -> Iterator[None]:
    """Within this no trained weight is zero, as those of a new adapter are, and dropout is off."""
    zeros = [weight for weight in tuned.parameters() if weight.requires_grad and not weight.any()]
    chances = [
        (module, name, value) for module in tuned.modules() for name, value in vars(module).items() if _is_dropout_rate(module, name, value)
    ]
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


def _is_dropout_rate(module: torch.nn.Module, name: str, value: object) -> bool:
    """Whether this is a rate of dropout or jitter."""
    rate = "drop" in name or "jitter" in name or (name == "p" and isinstance(module, torch.nn.modules.dropout._DropoutNd))
    return rate and type(value) is float and value > 0


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]
