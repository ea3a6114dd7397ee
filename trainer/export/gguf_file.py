"""A merged model as one GGUF file, for llama.cpp and what is built on it: written tensor by tensor, then read back and compared.

Names, sizes and the quantiser are those of llama.cpp's own package `gguf`. llama.cpp's converter is in no package of its makers, and copies
by strangers bring a `gguf` of their own; what it does to the weights of these architectures stands in `_read_tensor` and `_rope_factors`.
q8_0 keeps 32 weights of a row in 34 bytes.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from conf.problem import Problem
from conf.schema import Gguf
from trainer.export import architectures
from trainer.export.vocabulary import WITHOUT, Vocabulary

FORMATS = {
    Gguf.f16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    Gguf.q8_0: (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
F32, F16, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0
WIDTHS: dict = {F32: np.float32, F16: np.float16, Q8_0: np.uint8}
BLOCK = 32  # weights that share a scale in q8_0
SIZES = {  # keys of a config.json, and the writer's words for them
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "head_count",
    "num_key_value_heads": "head_count_kv",
    "rms_norm_eps": "layer_norm_rms_eps",
    "vocab_size": "vocab_size",
    "attention_multiplier": "attention_scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}


def write(merged: Path, name: str, vocabulary: Vocabulary, kind: Gguf, file: Path) -> None:
    """Write the model in the folder `merged` into `file`."""
    config = read_config(merged)
    writer = gguf.GGUFWriter(file, architectures.NAMES[config["model_type"]])
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    _describe(writer, config, kind)
    _describe_tokens(writer, vocabulary)
    tensors = _tensors(merged, config)
    for stored, (shape, _) in tensors.items():
        form = _form(stored, shape, kind)
        size = gguf.quant_shape_to_byte_shape(shape, form) if form is Q8_0 else shape
        width = np.dtype(WIDTHS[form])
        writer.add_tensor_info(stored, size, width, math.prod(size) * width.itemsize, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for stored, (shape, read) in tensors.items():
        writer.write_tensor_data(packed(read(), _form(stored, shape, kind)))
    writer.close()


def compare(merged: Path, file: Path) -> gguf.GGUFReader:
    """The file, opened; a Problem where a tensor of it is not the merged model's within what its format can hold."""
    read, wanted = gguf.GGUFReader(file), _tensors(merged, read_config(merged))
    held = {tensor.name: tensor for tensor in read.tensors}
    if held.keys() != wanted.keys():
        raise _mismatch(file, f"it holds {len(held)} tensors, and the merged model has {len(wanted)}")
    for name, (shape, source) in wanted.items():
        values, expected = unpacked(held[name]), source()
        if values.shape != shape or not ((values - expected).abs() <= _bound(expected, held[name].tensor_type)).all():
            raise _mismatch(file, f"its tensor {name} is not the merged model's")
    return read


def read_vocabulary(read: gguf.GGUFReader) -> Vocabulary:
    """The tokenizer that an opened file describes."""
    values = {name: part.contents() for name, part in read.fields.items() if name.startswith("tokenizer.")}
    own = "tokenizer.ggml."
    numbers = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id"}
    return Vocabulary(
        values[own + "pre"],
        values[own + "tokens"],
        values[own + "token_type"],
        values[own + "merges"],
        values["tokenizer.chat_template"],
        {name: values[own + key] for name, key in numbers.items() if own + key in values},
        values[own + "add_bos_token"],
    )


@torch.no_grad()
def load_into(model: PreTrainedModel, file: Path) -> bool:
    """Give the merged model, which is in memory, the weights that the file beside it holds; whether that changes any of them."""
    config, changed, read = read_config(file.parent), False, gguf.GGUFReader(file)
    held, weights = {tensor.name: tensor for tensor in read.tensors}, dict(model.named_parameters())
    names = gguf.get_tensor_name_map(_architecture(config), config["num_hidden_layers"])
    for name, weight in weights.items():
        values = unpacked(held[_gguf_name(names, name)])
        if heads := _interleaved_heads(config, name):
            values = values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        values = values.to(weight.device, weight.dtype)
        changed = changed or not torch.equal(values, weight)
        weight.copy_(values)
    return changed


def read_config(merged: Path) -> dict:
    """The merged model's config.json."""
    return json.loads((merged / "config.json").read_text(encoding="utf-8"))


def _architecture(config: dict) -> gguf.MODEL_ARCH:
    wanted = architectures.NAMES[config["model_type"]]
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == wanted)


def _describe(writer: gguf.GGUFWriter, config: dict, kind: Gguf) -> None:
    for key, word in SIZES.items():
        if config.get(key) is not None:
            getattr(writer, f"add_{word}")(config[key])
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(architectures.rope(config)["rope_theta"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_file_type(FORMATS[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _describe_tokens(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.ids.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_chat_template(vocabulary.chat_template)


def _tensors(merged: Path, config: dict) -> dict[str, tuple[tuple, Callable[[], torch.Tensor]]]:
    """By its name in a GGUF file: each tensor's shape, and a function that reads it as llama.cpp keeps it, in fp32."""
    names = gguf.get_tensor_name_map(_architecture(config), config["num_hidden_layers"])
    tensors: dict[str, tuple[tuple, Callable[[], torch.Tensor]]] = {}
    for shard in sorted(merged.glob("*.safetensors")):
        with safe_open(shard, "pt") as weights:
            for name in weights.offset_keys():
                tensors[_gguf_name(names, name)] = (tuple(weights.get_slice(name).get_shape()), partial(_read_tensor, shard, name, config))
    if (factors := _rope_factors(config)) is not None:
        tensors["rope_freqs.weight"] = (tuple(factors.shape), lambda: factors)
    return tensors


def _gguf_name(names: gguf.TensorNameMap, name: str) -> str:
    gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if gguf_name is None:
        raise Problem(f"publish.gguf: llama.cpp has no place for the merged model's {name}", WITHOUT, "crashed")
    return gguf_name


def _read_tensor(shard: Path, name: str, config: dict) -> torch.Tensor:
    with safe_open(shard, "pt") as weights:
        values = weights.get_tensor(name).float()
    if heads := _interleaved_heads(config, name):
        values = values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    return values.contiguous()


def _interleaved_heads(config: dict, name: str) -> int | None:
    """Of what makes queries or keys, how many heads are reordered: halves of a head become neighbours."""
    if architectures.NAMES[config["model_type"]] not in architectures.INTERLEAVED:
        return None
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    return heads.get(name.split(".")[-2])


def _rope_factors(config: dict) -> torch.Tensor | None:
    """Llama 3's stretched positions: what each frequency is divided by, as in transformers' `_compute_llama3_parameters`."""
    rope = architectures.rope(config)
    if rope["rope_type"] != "llama3":
        return None
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    smooth = ((original / waves - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / rope["factor"] + smooth)


def _form(name: str, shape: tuple, kind: Gguf) -> gguf.GGMLQuantizationType:
    """How llama.cpp keeps this tensor: what is not a matrix in fp32, rows that are no whole blocks in f16."""
    if len(shape) < 2:
        return F32
    return F16 if kind is Gguf.f16 or shape[-1] % BLOCK else FORMATS[kind][0]


def packed(values: torch.Tensor, form: gguf.GGMLQuantizationType) -> np.ndarray:
    """Weights as they stand in the file: the bytes of `gguf.quantize`, which takes Python's time for every 16 rows."""
    if form is not Q8_0:
        return values.to(torch.float16 if form is F16 else torch.float32).numpy()
    blocks = values.reshape(-1, BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    counts = blocks * torch.where(scale == 0, 0, 1 / scale)
    counts = (counts.sign() * (counts.abs() + 0.5).floor()).to(torch.int8)  # half a step away from zero, as llama.cpp rounds
    together = torch.cat([scale.to(torch.float16).view(torch.uint8), counts.view(torch.uint8)], dim=1)
    return together.reshape(*values.shape[:-1], -1).numpy()


def unpacked(tensor: gguf.ReaderTensor) -> torch.Tensor:
    """The weights that stand in the file, in fp32: what `gguf.dequantize` gives."""
    values = torch.from_numpy(np.array(tensor.data))
    if tensor.tensor_type is not Q8_0:
        return values.float()
    blocks = values.reshape(-1, 2 + BLOCK)
    weights = blocks[:, :2].contiguous().view(torch.float16).float() * blocks[:, 2:].contiguous().view(torch.int8)
    return weights.reshape(*values.shape[:-1], -1)


def _bound(expected: torch.Tensor, form: gguf.GGMLQuantizationType) -> torch.Tensor:
    """How far a weight in this format may be from what it stands for: half a step; of q8_0 also what its scale loses in f16."""
    if form is F32:
        return torch.zeros(())
    if form is F16:
        return expected.abs() * 2**-11 + 2**-25
    most = expected.reshape(-1, BLOCK).abs().amax(dim=1, keepdim=True)
    return (most * (1 / 254 + 2**-11) + 127 * 2**-25).expand(-1, BLOCK).reshape(expected.shape)


def _mismatch(file: Path, what: str) -> Problem:
    return Problem(f"publish.gguf: {file.name} was read back, and {what}", WITHOUT, "crashed")
