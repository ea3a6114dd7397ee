"""What a layer of each architecture keeps for its backward pass beyond what its matrices show, counted on small random models.

    python -m tests.unit.trainer.activations [KIND ...]     writes trainer/estimate/activations.json anew (20 minutes), or KINDs of it

Numbers of a layer's activations are a sum of so many times its width, so many times its MLP's, and so many times heads x tokens x tokens
where attention is computed as a matrix. Models of several sizes tell how many; what the plan knows by itself is taken off before.
"""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import transformers

from conf import load
from tests.unit.trainer import architectures
from tests.unit.trainer.counting import counting, most
from trainer.estimate import activations, architecture, memory
from trainer.estimate.shape import Shape
from trainer.model import attention, model, packing
from trainer.rows.prompt import Example
from trainer.train import optimizer

FILE = Path(memory.__file__).with_name("activations.json")
# Widths of the model and of its MLP, heads, and tokens. ELSEWHERE nothing is measured: it shows whether the numbers hold.
SIZES = [(64, 128, 4, 128), (64, 128, 4, 256), (128, 512, 4, 128), (128, 256, 8, 128)]
ELSEWHERE, USUAL = (96, 256, 4, 192), (64, 128, 4, 192)
LEARNED, CLOSE, MATRICES = 20, 0.1, 5


class Fused(torch.autograd.Function):
    """Attention as a GPU computes it: queries, keys, values, output and a number for each token and head are kept, and no matrix."""

    @staticmethod
    def forward(context, query, key, value, output):
        context.save_for_backward(query, key, value, output, query.new_zeros(query.shape[:-1], dtype=torch.float32))
        return output.clone()

    @staticmethod
    def backward(context, gradient):
        query, key, value, *_ = context.saved_tensors
        return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value), None


def fused(query, key, value, *_, **options):
    with torch.no_grad():
        output = query.new_zeros((*query.shape[:-1], value.shape[-1]))
    return Fused.apply(query, key, value, output)


def sized(kind: str, width: int, inner: int, heads: int, dtype: torch.dtype):
    """A small model of the class in these sizes."""
    sizes = {64: width, 128: inner, 4: heads}
    with mock.patch.dict(architectures.SMALL, {name: sizes.get(size, size) for name, size in architectures.SMALL.items()}):
        return architectures.small(kind).to(dtype)


def prepared(small_model, kind: str, tokens: int, recipe):
    """The model with its adapter, a row for it, and the attention in which it is trained."""
    packed = architecture.table()[kind].outcome == "packed"
    again = recipe.train.gradient_checkpointing == "yes"
    base = model.BaseModel(small_model, None, None, [], "", small_model.config._attn_implementation)
    tuned = model.add_adapter(base, recipe.lora, gradient_checkpointing=again).train()
    row = Example(None, [5 + number % 200 for number in range(tokens - LEARNED)], [7] * LEARNED)
    (pack,) = packing.packs([row], tokens if packed else None)
    return tuned, pack, attention.packed(small_model) if packed else nullcontext()


def kept_for_backward(kind: str, sizes: tuple[int, int, int, int], dtype: torch.dtype, recipe) -> tuple[int, Shape, memory.ForwardPass]:
    """Bytes of the activations, each storage once, without logits; the model's sizes and its pass."""
    *widths, tokens = sizes
    small_model = sized(kind, *widths, dtype)
    tuned, pack, within = prepared(small_model, kind, tokens, recipe)
    weights = {weight.untyped_storage().data_ptr() for weight in [*tuned.parameters(), *tuned.buffers()]}
    storages: dict[int, torch.Tensor] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    on_a_gpu = mock.patch("torch.nn.functional.scaled_dot_product_attention", fused) if dtype is torch.bfloat16 else nullcontext()
    attention._masks.cache_clear()
    with within, on_a_gpu, torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        model.loss(tuned, pack)
    shape = model.shape_of_model(small_model)
    logits = 4 * LEARNED * shape.vocabulary
    return (
        sum(tensor.untyped_storage().nbytes() for tensor in storages.values()) - logits,
        shape,
        memory.ForwardPass(tokens, [tokens], 0, LEARNED),
    )


def beyond(kind: str, dtype: torch.dtype, recipe) -> tuple[list[float], list[str]]:
    """The three numbers that fit best, and what hindered some sizes."""
    rows, more, failures = [], [], []
    for sizes in SIZES:
        try:
            counted, shape, load = kept_for_backward(kind, sizes, dtype, recipe)
        except Exception as error:  # a class whose configuration takes no such sizes
            failures.append(f"{kind} {sizes}: {type(error).__name__}: {str(error)[:100]}")
            continue
        planned = _planned(replace(shape, activations=activations.NONE), load, dtype, recipe)
        numbers = shape.layers * dtype.itemsize * load.tokens
        rows.append(
            [numbers * part / planned for part in (shape.hidden, shape.inner, shape.heads * load.tokens)]
        )  # all sizes weigh the same
        more.append(counted / planned - 1)  # all sizes weigh the same
    solved = _fit(rows, more)
    if solved[2] < 0:  # padding, not attention
        solved = [*_fit([row[:2] for row in rows], more), 0.0]
    return solved, failures


def _fit(rows: list[list[float]], more: list[float]) -> list[float]:
    matrix, target = torch.tensor(rows, dtype=torch.float64), torch.tensor(more, dtype=torch.float64)[:, None]
    return [round(number, 2) for number in torch.linalg.lstsq(matrix, target, driver="gelsd").solution[:, 0].tolist()]


def _planned(shape: Shape, load: memory.ForwardPass, dtype: torch.dtype, recipe) -> int:
    return sum(count * memory.activations(shape, layer, recipe.lora, load, dtype.itemsize, nf4=False) for layer, count in shape.reading)


def step_bytes(kind: str, sizes: tuple[int, int, int, int], recipe) -> dict[str, tuple[int, Shape]]:
    """Bytes at the fullest moment of a step by torch's count, in fp32, where activations are computed again and where they are not."""
    found = {}
    for again in ("yes", "no"):
        recipe.train.gradient_checkpointing = again
        *widths, tokens = sizes
        small_model = sized(kind, *widths, torch.float32)
        if again == "yes" and not architecture.table()[kind].gradient_checkpointing:
            continue
        tuned, pack, within = prepared(small_model, kind, tokens, recipe)
        learner = optimizer.build(tuned, recipe.train)
        with within:
            model.loss(tuned, pack).backward()
            learner.step()
            learner.zero_grad()
            with counting() as counted:
                model.loss(tuned, pack).backward()
                learner.step()
                learner.zero_grad()
        remembered = sum(value.nbytes for state in learner.state.values() for value in state.values() if torch.is_tensor(value))
        lying = remembered + sum(weight.nbytes for weight in [*tuned.parameters(), *tuned.buffers()])
        found[again] = (lying + most(counted), model.shape_of_model(small_model))
    return found


def entry(kind: str, recipe) -> dict:
    """What the table says of a class: `counted` where its numbers hold elsewhere; where they do not, none of them lowers the estimate.

    `planned` are planned bytes over counted ones elsewhere: of a step that computes activations again or not, and of activations in bf16.
    """
    fp32, failed = beyond(kind, torch.float32, recipe)
    bf16, _ = beyond(kind, torch.bfloat16, recipe)
    sizes = USUAL if failed else ELSEWHERE
    real = step_bytes(kind, sizes, recipe), kept_for_backward(kind, sizes, torch.bfloat16, recipe)
    planned = ratios(fp32, bf16, *real, recipe)
    counted = not failed and all(abs(ratio - 1) <= CLOSE for ratio in planned.values())
    if not counted:
        fp32, bf16 = [max(number, 0.0) for number in fp32], [max(number, 0.0) for number in bf16]
        planned = ratios(fp32, bf16, *real, recipe)
    return {"fp32": fp32, "bf16": bf16, "counted": counted, "planned": planned}


def ratios(fp32: list[float], bf16: list[float], steps: dict[str, tuple[int, Shape]], kept: tuple, recipe) -> dict[str, float]:
    """Planned bytes with these numbers over counted ones."""
    estimate = activations.Activations(activations.Beyond(*fp32), activations.Beyond(*bf16), True)
    counted, shape, load = kept
    found = {"bf16": _planned(replace(shape, activations=estimate), load, torch.bfloat16, recipe) / counted}
    for again, (size, step_shape) in steps.items():
        recipe.train.gradient_checkpointing = again
        planned = memory.training_memory(replace(step_shape, activations=estimate), recipe, load, 4)
        found[again] = sum(planned.values()) / size
    return {name: round(ratio, 2) for name, ratio in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    recipe = load.load(["cloud=twin", "quant=none", "lora.r=2"])
    trained = [kind for kind, verdict in architecture.table().items() if verdict.outcome != "refused"]
    for kind in sys.argv[1:] or trained:
        try:
            measured = entry(kind, recipe)
        except Exception as error:  # its configuration takes no other sizes: its plan stays a guess
            print(f"{kind} is not counted: {type(error).__name__}: {error}", flush=True)
            continue
        print(kind, measured, flush=True)
        if measured["fp32"][2] > MATRICES:  # what grows with the tokens is none of the model's heads: nothing follows for other sizes
            continue
        entries = json.loads(FILE.read_text(encoding="utf-8")) | {kind: measured}
        FILE.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
