"""A model's sizes, from the names and shapes of its own tensors: as its safetensors files list them in their headers, or as the model has
them on torch's meta device. Its config.json adds what no tensor shows: the number of heads, and of active experts."""

import json
import math
import re
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from conf.problem import Problem
from trainer.estimate import activations
from trainer.estimate.activations import Activations
from trainer.rows.description import HEAD_WIDTHS, HEADS, TAKING_PART

MOST_KINDS = 1000  # of layers: the largest model has a tenth of it
LONGEST = 1 << 40  # numbers along one side of a tensor, at the most
WIDTHS = dict.fromkeys(("F64", "I64", "U64"), 8) | dict.fromkeys(("F32", "I32", "U32"), 4) | dict.fromkeys(("F16", "BF16", "I16", "U16"), 2)
COMPUTED = {"F64", "F32", "F16", "BF16"}  # numbers that become those that the run computes with
NUMBER = re.compile(r"^(.*?)\.?\b(\d+)\.(.*)$")  # of a layer, the first one in a name
# By transformers' names: other modalities, embeddings and heads, and weights with two dimensions that are no linear layer.
OTHER_SENSES = re.compile(r"(^|[._])(vision|visual|image|audio|speech|multi_modal|mm_projector|multimodal|conformer|siglip)")
TABLE = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embedding|embeddings|lm_head|embed_out|output_layer)$")
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)$")
NOT_LINEAR = re.compile(r"embed|(^|[._])(wpe|norm|conv1d|positions?)([._]|$)")
EXPERTS = re.compile(r"(^|\.)experts\.")
LEAVES = re.compile(r"^(o_proj|out_proj|down_proj|c_proj|dense|dense_4h_to_h|fc2|wo|w2|output_linear)$")  # attention or an MLP
ROUTER = re.compile(r"(^|\.)(gate|router|routers|shared_expert_gate)(\.|$)")  # a module that chooses experts; gate_proj is none
# What gets no gradient from text: cross-attention, token indexers, and layers whose weight is used without a call of the layer (Jamba,
# Doge), so that an adapter around them never computes.
UNREACHED = re.compile(
    r"(^|\.)(encoder_attn|cross_attn|crossattention|indexer|pooler|dt_proj|altup|\w*adapter_list|image_encoder|embed_tokens_extend)(\.|$)"
)
# PEFT puts an adapter on these models' experts where all linear layers are asked for: they were linear layers before transformers 5. It
# takes their old names, so that no other layer with one of these names (a shared expert's, a dense layer's) gets an adapter there.
MIXTRAL, QWEN = ("w1", "w3", "w2"), ("gate_proj", "up_proj", "down_proj")
ADAPTED_EXPERTS = dict.fromkeys(("mixtral", "minimax", "minimax_m2"), MIXTRAL) | dict.fromkeys(
    (
        *("afmoe", "beam", "cohere2_moe", "deepseek_v3", "deepseek_v32", "ernie4_5_moe", "exaone_moe", "flex_olmo", "glm4_moe"),
        *("glm4_moe_lite", "glm_moe_dsa", "hunyuan_v1_moe", "mellum", "olmoe", "qwen3_moe", "qwen3_next", "solar_open"),
    ),
    QWEN,
)


class Tensor(NamedTuple):
    sizes: tuple[int, ...]
    kind: str  # of number, by safetensors' name for it

    @property
    def numbers(self) -> int:
        return math.prod(self.sizes)


def tensor(sizes: list, kind: object) -> Tensor:
    """The tensor that a file lists; a ValueError where there is none of such sizes."""
    if len(sizes) > 8 or not all(type(size) is int and 0 <= size < LONGEST for size in sizes) or not isinstance(kind, str):
        raise ValueError(f"a tensor of {str(sizes)[:100]} {str(kind)[:20]}")
    return Tensor(tuple(sizes), kind)


@dataclass(frozen=True)
class Matrix:
    """A linear layer."""

    name: str  # the last part of its path
    block: str  # the part before: attention, or the MLP
    inputs: int
    outputs: int
    reached: bool  # whether it gets an adapter where all linear layers do

    @property
    def leaves(self) -> bool:
        """Whether it is the output layer of attention or of an MLP."""
        return bool(LEAVES.match(self.name))


@dataclass(frozen=True)
class Layer:
    linear: tuple[Matrix, ...]
    experts: int  # how many there are
    expert_inner: int  # width of the MLP of one
    expert_numbers: int  # of all of them
    reads: bool  # text; a vision tower's layers do not


@dataclass(frozen=True)
class Shape:
    kinds: tuple[tuple[Layer, int], ...]  # layers of one kind, and how many there are
    hidden: int
    inner: int  # width of the widest MLP, or of what takes its place
    heads: int
    queries: int  # width of all query heads
    keys: int  # width of all key heads, and of all value heads
    vocabulary: int
    tables: frozenset[str]  # the last parts of the names of embedding and head
    quantised: int  # numbers that NF4 takes
    plain: int  # numbers that it leaves as they are
    stored: int | None  # bytes of what the model's owner has quantised, which stay as they are stored
    active: int  # experts that read a token
    activations: Activations  # what layers keep beyond their matrices
    expert_names: tuple[str, ...]  # by which PEFT adapts experts: two input matrices, and the output; empty where it does not

    @property
    def reading(self) -> list[tuple[Layer, int]]:
        return [(layer, count) for layer, count in self.kinds if layer.reads]

    @property
    def layers(self) -> int:
        return sum(count for _, count in self.reading)

    @property
    def widest(self) -> int:
        """Numbers of the largest matrix of the layers."""
        return max((matrix.inputs * matrix.outputs for layer, _ in self.reading for matrix in layer.linear), default=0)

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with; the head not among them."""
        return sum(count * (_multiplied(layer) + self._experts(layer)) for layer, count in self.reading)

    @property
    def counted(self) -> bool:
        """Whether activations are counted, not estimated."""
        return self.stored is None and self.activations.counted

    def _experts(self, layer: Layer) -> int:
        return layer.expert_numbers * self.active // layer.experts if layer.experts else 0


def _multiplied(layer: Layer) -> int:
    return sum(matrix.inputs * matrix.outputs for matrix in layer.linear)


def shape(tensors: dict[str, Tensor], config: dict, text_only: bool = False) -> Shape | None:
    """The sizes of a model with these tensors, or None where no layers are known. `text_only`: its class leaves other modalities out."""
    text = config | (config.get("text_config") or {})
    if text_only:
        tensors = {name: tensor for name, tensor in tensors.items() if not OTHER_SENSES.search(name)}
    tables = {name: tensor for name, tensor in _modules(tensors).items() if TABLE.search(name) and not NUMBER.match(name)}
    lookup = [tensor for name, tensor in tables.items() if not HEAD.search(name) and len(tensor.sizes) == 2]
    vocabulary, hidden = max(lookup, key=lambda tensor: tensor.numbers).sizes if lookup else (0, 0)
    if not hidden:
        return None
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    twice = {f"{name}.weight" for name in tables if tied and HEAD.search(name)}
    kinds, linear = _kinds({name: tensor for name, tensor in tensors.items() if name not in twice}, config, hidden)
    if not 0 < len(kinds) <= MOST_KINDS:
        return None
    everything = sum(tensor.numbers for name, tensor in tensors.items() if name not in twice)
    heads = _first_number(text, HEADS) or 1
    width = _first_number(text, HEAD_WIDTHS) or hidden // heads
    reading = [matrix for layer, _ in kinds if layer.reads for matrix in layer.linear]
    stored = config.get("quantization_config") or text.get("quantization_config")
    packed = [tensor for tensor in tensors.values() if tensor.kind not in COMPUTED]
    return Shape(
        kinds,
        hidden,
        max((_width(matrix) for matrix in reading if matrix.block != "self_attn"), default=hidden),
        heads,
        heads * width,
        (text.get("num_key_value_heads") or heads) * width,
        vocabulary,
        frozenset({"lm_head"} | {name.rpartition(".")[2] for name in tables}),  # a head that is tied has no tensor
        linear,
        everything - sum(tensor.numbers for tensor in packed) if stored else everything - linear,
        sum(tensor.numbers * WIDTHS.get(tensor.kind, 1) for tensor in packed) if stored else None,
        _first_number(text, TAKING_PART) or 1,
        activations.of(config.get("model_type")),
        ADAPTED_EXPERTS.get(config.get("model_type", ""), ()),
    )


def _width(matrix: Matrix) -> int:
    """The width between the two layers of an MLP, or of what takes its place."""
    return max(matrix.inputs, matrix.outputs // 2 if matrix.name == "gate_up_proj" else matrix.outputs)


def _modules(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of modules, by the module's name."""
    return {name.removesuffix(".weight"): tensor for name, tensor in tensors.items() if name.endswith(".weight")}


def _first_number(values: dict, names: tuple[str, ...]) -> int | None:
    return next((values[name] for name in names if isinstance(values.get(name), int)), None)


def _kinds(tensors: dict[str, Tensor], config: dict, hidden: int) -> tuple[tuple[tuple[Layer, int], ...], int]:
    """The kinds of layers, how many there are of each, and how many numbers are in linear layers."""
    matrices, experts, numbers = defaultdict(list), defaultdict(list), 0
    for name, tensor in tensors.items():
        layer, inside = _place(name)
        if layer and EXPERTS.search(name):
            experts[layer].append((inside, tensor))
        elif sizes := _linear(name, tensor, config, hidden):
            numbers += math.prod(sizes)
            if layer:
                matrices[layer].append(_matrix(name, *sizes))
    layers = Counter(
        Layer(
            tuple(sorted(matrices[layer], key=lambda matrix: (matrix.block, matrix.name))), *_experts(experts[layer], hidden), _reads(layer)
        )
        for layer in matrices | experts
    )
    return tuple(layers.items()), numbers


def _place(name: str) -> tuple[tuple[str, str] | None, str]:
    """Which layer of which stack a tensor is of, and its name within it."""
    match = NUMBER.match(name)
    return ((match[1], match[2]), match[3]) if match else (None, name)


def _reads(layer: tuple[str, str]) -> bool:
    return not OTHER_SENSES.search(layer[0])


def _linear(name: str, tensor: Tensor, config: dict, hidden: int) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer; None where the tensor is no linear layer's weight."""
    module, _, kind = name.rpartition(".")
    if kind not in ("weight", "qweight", "weight_packed") or NOT_LINEAR.search(module) or TABLE.search(module) or len(tensor.sizes) != 2:
        return None
    if tensor.kind in ("U8", "I32"):  # several numbers in each; one side of nearly every matrix is the model's width
        settings = config.get("quantization_config") or {}
        bits = 4 if settings.get("load_in_4bit") else settings.get("bits", 4)
        return hidden, tensor.numbers * WIDTHS.get(tensor.kind, 1) * 8 // bits // hidden
    return tensor.sizes[1], tensor.sizes[0]


def _matrix(name: str, inputs: int, outputs: int) -> Matrix:
    block, _, last = name.rpartition(".")[0].rpartition(".")
    reached = not (UNREACHED.search(name) or ROUTER.search(name) or OTHER_SENSES.search(name))
    return Matrix(last, block.rpartition(".")[2], inputs, outputs, reached)


def _experts(tensors: list[tuple[str, Tensor]], hidden: int) -> tuple[int, int, int]:
    """How many experts a layer has, the width of the MLP of one, and all their numbers: stored one by one, or all in one tensor."""
    if not tensors:
        return 0, 0, 0
    numbers = sum(tensor.numbers for _, tensor in tensors)
    one_by_one = {match[1] for name, _ in tensors if (match := re.search(r"(?:^|\.)experts\.(\d+)\.", name))}
    count = len(one_by_one) or max(tensor.sizes[0] for _, tensor in tensors)
    return count, round(numbers / count / (3 * hidden)), numbers


def of_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors that a model's safetensors files list, of those in its folder that transformers loads; none where it has none."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    paths = [whole] if whole.is_file() else [folder / part for part in sorted(parts)]
    return {name: tensor for path in paths for name, tensor in _header(path).items()}


def _header(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= path.stat().st_size else {"": {}}
        return {name: tensor(info["shape"], info["dtype"]) for name, info in header.items() if name != "__metadata__"}
    except (struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise no_safetensors(path) from error


def no_safetensors(what: object) -> Problem:
    return Problem(f"{what} ends in .safetensors and is no such file", "name another model: `model.id=owner/name`", "model_unavailable")
