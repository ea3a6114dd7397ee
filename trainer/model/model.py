"""The base model, its adapter, and the loss of a pack.

The base is frozen, in NF4 or plain; the adapter is PEFT's, with weights in fp32. `prepare_model_for_kbit_training` stays out:
it would copy embeddings, head and norms to fp32.
"""

import inspect
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

import torch
import transformers
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from conf import schema
from conf.problem import Problem
from trainer.estimate import architecture, memory, shape
from trainer.estimate.fit import Room
from trainer.hub_errors import explained
from trainer.model import attention, layers, lora_options, nf4
from trainer.model.packing import Pack
from trainer.rows import description

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
UNWANTED = ["*/*", "consolidated*"]  # other formats of the same weights
# Left out, transformers asks on a terminal whether it may run what the model's repository brings; weights are data, and pickles are none.
OURS = {"trust_remote_code": False}


@dataclass(frozen=True)
class Base:
    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    revision: str | None  # the commit; None for a local folder
    stops: list[int]  # tokens at which the model ends an answer
    precision: str  # and why
    attention: str  # transformers' name for the implementation that the model has of its own


def load(model: schema.Model, quant: schema.Quant) -> Base:
    """The base model, fetched by its Hub id (or read from a local folder) and placed on the device."""
    folder, revision = fetch(model)
    place = device()
    dtype, described = precision(place)
    quantised, stored = quant.kind is schema.Quantisation.nf4, architecture.stored(config(folder))
    options = ({"quantization_config": nf4.config(quant, dtype)} if quantised else {}) | (
        {"device_map": {"": place}} if quantised or stored else {}
    )
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model.id, folder)
    with _loadable(model.id):
        weights = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **OURS, **options)
    nf4.keep_layout(weights)
    stops = weights.generation_config.eos_token_id
    plain = f"base weights as they are stored: {stored}" if stored else "base weights not quantised"
    described += f", {nf4.described(weights)}" if quantised and nf4.layers(weights) else f", {plain}"
    print(f"{model.id}: {sum(p.numel() for p in weights.parameters()):,} stored numbers; {described}", flush=True)
    own = weights.config._attn_implementation
    return Base(weights if options else weights.to(place), tokenizer, revision, _listed(stops), described, own)


def load_tokenizer(name: str, files: Path) -> transformers.PreTrainedTokenizerBase:
    with _loadable(name):
        return AutoTokenizer.from_pretrained(files, **OURS)


def config(files: Path) -> dict:
    """The model's config.json, as it is in its folder."""
    return description.config(files)


def sizes(name: str, files: Path) -> shape.Shape | None:
    """The model's sizes, before its weights are loaded: of the model itself, made without any. What is quantised is as it is stored."""
    values = config(files)
    if architecture.stored(values):
        return shape.shape(shape.of_folder(files), values)
    with _loadable(name), torch.device("meta"):
        return sizes_of(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(files, **OURS), **OURS))


ADDED = re.compile(r"\.(lora_\w+|modules_to_save|trainable_tokens_\w+)(\.|$)")  # by PEFT, beside the base model's own weights
WRAPPED = re.compile(r"^base_model\.model\.|\.(base_layer|original_module|token_adapter)(?=\.)")


def sizes_of(made: transformers.PreTrainedModel | PeftModel) -> shape.Shape | None:
    """The sizes of a model as if nothing were quantised in it, and without its adapter."""
    weights = {WRAPPED.sub("", name): weight for name, weight in made.named_parameters() if not ADDED.search(name)}
    numbers = {name: getattr(weight, "quant_state", weight).shape for name, weight in weights.items()}
    values = made.config.to_dict()
    values.pop("quantization_config", None)
    return shape.shape({name: shape.Tensor(tuple(size), "F32") for name, size in numbers.items()}, values)


@contextmanager
def _loadable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        if getattr(error, "errno", None):
            raise
        what = f"{name} cannot be loaded as a causal language model: {str(error).splitlines()[0]}"
        raise Problem(what, "choose another: `model.id=owner/name`", "model_unavailable") from error


def fetch(model: schema.Model) -> tuple[Path, str | None]:
    """The folder with the model's files, and the commit they are of."""
    if Path(model.id).is_dir():
        return Path(model.id), None
    with explained(model.id, os.environ.get("HF_ENDPOINT")):
        folder = Path(snapshot_download(model.id, revision=model.revision, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    if not list(folder.glob("*.safetensors")):
        raise Problem(f"{model.id} has no weights as .safetensors", "choose another: `model.id=owner/name`", "model_unavailable")
    return folder, folder.name


STARTS = re.compile(r"True|False|gaussian|orthogonal|olora|pissa(_niter_\d+)?")


def adapter_config(lora: schema.Lora, apart: list[str] | None = None) -> LoraConfig:
    """PEFT's configuration of the adapter, checked by PEFT itself. All linear layers are all but those that stand `apart`."""
    known = {entry.name for entry in fields(LoraConfig)}
    unknown = [name for name in lora.options if name not in known]
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean `lora.options.{close[0]}`?" if close else "see peft.LoraConfig for its options"
        raise Problem(f"PEFT's LoraConfig has no option `{unknown[0]}`", hint)
    truths = [entry.name for entry in fields(LoraConfig) if entry.type in (bool, "bool")]
    if loose := [name for name in truths if not isinstance(lora.options.get(name, False), bool)]:  # PEFT takes 7 for true
        what = f"lora.options.{loose[0]} is {lora.options[loose[0]]!r}, and it is true or false"
        raise Problem(what, f"`lora.options.{loose[0]}=true`, or leave it out")
    start = str(lora.options.get("init_lora_weights", True))
    if not STARTS.fullmatch(start):
        what = f"lora.options.init_lora_weights is {start}; an adapter cannot start that way without looking at data first"
        raise Problem(what, "use true, gaussian, orthogonal, olora, pissa or pissa_niter_16")
    if moves_base(lora) and lora.options.get("use_dora"):
        what = f"lora.options asks for DoRA on top of {start}; such an adapter cannot be given back to the base as everybody has it"
        raise Problem(what, "choose one of them")
    uneven = [name for name in ("rank_pattern", "alpha_pattern") if lora.options.get(name)]
    if moves_base(lora) and lora.options.get("use_rslora") and uneven:
        what = f"lora.options asks for rsLoRA and {uneven[0]} on top of {start}; such an adapter cannot be given back to the base"
        raise Problem(what, f"leave out one of them: `lora.options.use_rslora=false`, or no {uneven[0]}")
    lora_options.check(lora.options)
    try:
        return LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            **{"task_type": "CAUSAL_LM"} | ({"exclude_modules": apart} if apart and lora.targets == "all-linear" else {}) | lora.options,
        )
    except (TypeError, ValueError) as error:
        raise Problem(f"PEFT's LoraConfig refuses lora.options: {str(error).splitlines()[0]}", "see peft.LoraConfig") from error


def moves_base(lora: schema.Lora) -> bool:
    """Whether the adapter starts as a part of the base weights, which are less by it from then on (PiSSA, OLoRA)."""
    return str(lora.options.get("init_lora_weights")).startswith(("pissa", "olora"))


def adapt(base: Base, lora: schema.Lora, gradient_checkpointing: bool) -> PeftModel:
    """The base model with a new adapter: the only weights that learn."""
    apart = layers.apart(base.model)
    config = adapter_config(lora, apart)
    lora_options.check_names(lora, base.model)
    if lora.targets == "all-linear":
        layers.leave_routers(config, base.model)
    try:
        with layers.quiet_about_experts():
            tuned = get_peft_model(base.model, config)  # casts the adapter to fp32, whatever the base has
    except TypeError as error:  # PiSSA on 4-bit weights
        what = f"lora.options cannot be had with these base weights: {str(error).splitlines()[0]}"
        raise Problem(what, "keep the base weights plain: `quant=none`, or start another way") from error
    except ValueError as error:
        names, told = lora_options.linear_names(base.model), str(error).splitlines()[0]
        what = "matches no layer of the model" if "not found in the base model" in told else f"is refused by PEFT: {told}"
        raise Problem(f"lora.targets={lora.targets} {what}", f"use some of: 'lora.targets=[{names}]'") from error
    if lora.targets == "all-linear" and (left := layers.left_out(tuned, apart)):
        print(f"no adapter on {', '.join(left)} outside of experts: PEFT adapts the experts' by these names", flush=True)
    if gradient_checkpointing:
        base.model.gradient_checkpointing_enable({"use_reentrant": False})
    return tuned


def loss(model: PeftModel, pack: Pack, noise: float = 0.0) -> torch.Tensor:
    """The sum of the losses of the pack's supervised tokens."""
    return functional.cross_entropy(logits(model, pack, noise).float(), pack.labels.to(model.device), reduction="sum")


def logits(model: PeftModel, pack: Pack, noise: float = 0.0) -> torch.Tensor:
    """What the model expects at the pack's supervised tokens. The head is computed at those tokens only."""
    device, base = model.device, model.get_base_model()
    options, supervised = _packed(base, pack), pack.supervised.to(device)
    selects = "logits_to_keep" in inspect.signature(base.forward).parameters
    if selects:
        options["logits_to_keep"] = supervised
    with torch.autocast(device.type, torch.bfloat16, enabled=base.dtype is torch.bfloat16):
        found = model(**_inputs(model, pack, noise), **options, use_cache=False).logits[0]
    return found if selects else found[supervised]


def _packed(base: transformers.PreTrainedModel, pack: Pack) -> dict:
    """What a model needs to know of a pack, beside its tokens; one row alone it takes as it is."""
    if attention.takes_packs(base):
        return {"position_ids": pack.positions.to(base.device), "lengths": pack.lengths}
    if len(pack.rows) > 1:
        raise ValueError(f"{len(pack.rows)} rows in a pack, and the model would take them for one")
    return {}


def _inputs(model: PeftModel, pack: Pack, noise: float) -> dict[str, torch.Tensor]:
    """The pack's tokens, or their embeddings with NEFTune's noise (arXiv 2310.05914): uniform, scaled by the length of each row."""
    tokens = pack.tokens.to(model.device)
    if not noise:
        return {"input_ids": tokens}
    embedded = model.get_input_embeddings()(tokens)
    shared, rests = pack.lengths[0], pack.lengths[1:]
    lengths = [shared + sum(rests) / len(rests)] * shared + [shared + rest for rest in rests for _ in range(rest)]
    size = noise / (torch.tensor(lengths, device=model.device) * embedded.shape[-1]).sqrt()
    return {"inputs_embeds": embedded + (torch.rand_like(embedded) * 2 - 1) * size[:, None].to(embedded.dtype)}


def save_start(tuned: PeftModel, folder: Path) -> None:
    """Keep the adapter as it starts, for `save`: what it takes from the base weights must be given back."""
    config = tuned.peft_config["default"]
    start, config.init_lora_weights = config.init_lora_weights, True
    tuned.save_pretrained(folder, save_embedding_layers=False)
    config.init_lora_weights = start


def save(tuned: PeftModel, base: Base, model: schema.Model, folder: Path, start: Path | None = None) -> None:
    """Write the adapter as plain PEFT, with the tokenizer and the prompt's template. It names its base by Hub id and commit.

    An adapter that took its `start` from the base weights becomes one, of twice the rank, for the base as everybody has it.
    """
    config = tuned.peft_config["default"]
    config.base_model_name_or_path = model.id
    config.revision = base.revision
    # save_embedding_layers="auto", PEFT's default, asks the Hub for the base model's vocabulary size.
    options = {"path_initial_model_for_weight_conversion": str(start)} if start else {}
    tuned.save_pretrained(folder, save_embedding_layers=False, **options)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the card is made from the record
    base.tokenizer.save_pretrained(folder)


def greedy(base: Base, stops: list[int]) -> None:
    """From here on `generate` takes the likeliest token, whatever the model's own generation settings say."""
    base.model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=base.tokenizer.pad_token_id, do_sample=False)


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if has_gpu() else torch.device("cpu")


def has_gpu() -> bool:
    return torch.cuda.is_available()


def gpu() -> str | None:
    """The name of the GPU, as plans and rates are made for it; None on a CPU."""
    return torch.cuda.get_device_name(device()) if has_gpu() else None


def number_format(base: Base) -> str:
    """In what numbers are computed, and on what: sums come out otherwise in another one."""
    return f"{base.precision.partition(',')[0]} on a {'GPU' if has_gpu() else 'CPU'}"


def computed(place: torch.device) -> int:
    """Bytes of a number as it is computed there."""
    return precision(place)[0].itemsize


def room() -> Room | None:
    """The memory that is free for a run: of the GPU if there is one, else of the machine; None where the system does not tell."""
    if has_gpu():
        free, total = torch.cuda.mem_get_info(device())
        return Room(torch.cuda.get_device_name(device()), min(free, int(total * (1 - memory.RESERVE))))
    free = free_memory()
    return None if free is None else Room("this machine", free)


def free_memory() -> int | None:
    """Bytes that programs can still have, where the system tells."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    values = dict(line.split(":") for line in table.read_text(encoding="utf-8").splitlines())
    return int(values["MemAvailable"].split()[0]) * 1024


def peak_memory() -> int:
    """Bytes that this process needed at its fullest: on the device if there is one, else of the machine's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def precision(place: torch.device) -> tuple[torch.dtype, str]:
    """The format that numbers are computed in there, and why."""
    if place.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bf16, as this GPU computes it natively"
        return torch.float32, "fp32, as this GPU has no bf16 and fp16 overflows"
    able, allowed = torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability()
    if not (able.get("amx_bf16") or able.get("avx512_bf16")):
        return torch.float32, "fp32, as this CPU only emulates bf16"
    if allowed != "AVX512":  # by ATEN_CPU_CAPABILITY
        return torch.float32, f"fp32, as torch may use no more than {allowed} of this CPU"
    return torch.bfloat16, "bf16, as this CPU computes it natively"


def _listed(tokens: int | list[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
