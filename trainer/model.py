"""The base model, its adapter, and the loss of a pack.

The base is frozen, in NF4 or plain; the adapter is PEFT's, with weights in fp32. `prepare_model_for_kbit_training` stays out:
it would copy embeddings, head and norms to fp32.
"""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from conf import schema
from conf.problem import Problem
from trainer.hub import explained
from trainer.pack import Pack

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
UNWANTED = ["*/*", "consolidated*"]  # other formats of the same weights


@dataclass(frozen=True)
class Base:
    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    revision: str | None  # the commit; None for a local folder
    stops: list[int]  # tokens at which the model ends an answer
    precision: str  # and why


def load(model: schema.Model, quant: schema.Quant) -> Base:
    """The base model, fetched by its Hub id (or read from a local folder) and placed on the device."""
    folder, revision = fetch(model)
    place = device()
    dtype, precision = _precision(place)
    nf4 = quant.kind is schema.Quantisation.nf4
    options = {"quantization_config": _nf4(quant, dtype), "device_map": {"": place}} if nf4 else {}
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        weights = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", **options)
    except (OSError, ValueError, KeyError) as error:
        if getattr(error, "errno", None):
            raise
        what = f"{model.id} cannot be loaded as a causal language model: {str(error).splitlines()[0]}"
        raise Problem(what, "choose another: `model.id=owner/name`", "model_unavailable") from error
    stops = weights.generation_config.eos_token_id
    precision += ", base weights in 4-bit NF4" if nf4 else ", base weights not quantised"
    print(f"{model.id}: {sum(p.numel() for p in weights.parameters()):,} stored numbers; {precision}", flush=True)
    return Base(weights.to(place) if not nf4 else weights, tokenizer, revision, _listed(stops), precision)


def fetch(model: schema.Model) -> tuple[Path, str | None]:
    """The folder with the model's files, and the commit they are of."""
    if Path(model.id).is_dir():
        return Path(model.id), None
    with explained(model.id, os.environ.get("HF_ENDPOINT")):
        folder = Path(snapshot_download(model.id, revision=model.revision, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    if not list(folder.glob("*.safetensors")):
        raise Problem(f"{model.id} has no weights as .safetensors", "choose another: `model.id=owner/name`", "model_unavailable")
    return folder, folder.name


def adapt(base: Base, lora: schema.Lora, recompute: bool) -> PeftModel:
    """The base model with a new adapter: the only weights that learn."""
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        use_rslora=lora.rslora,
        task_type="CAUSAL_LM",
    )
    try:
        tuned = get_peft_model(base.model, config)  # casts the adapter to fp32, whatever the base has
    except ValueError as error:
        linear = {name.rsplit(".", 1)[-1] for name, module in base.model.named_modules() if isinstance(module, torch.nn.Linear)}
        names = ",".join(sorted(linear - {"lm_head"}))
        raise Problem(f"lora.targets={lora.targets} matches no layer of the model", f"use some of: 'lora.targets=[{names}]'") from error
    if recompute:
        base.model.gradient_checkpointing_enable({"use_reentrant": False})
    return tuned


def loss(model: PeftModel, pack: Pack) -> torch.Tensor:
    """The sum of the losses of the pack's supervised tokens."""
    return functional.cross_entropy(logits(model, pack).float(), pack.labels.to(model.device), reduction="sum")


def logits(model: PeftModel, pack: Pack) -> torch.Tensor:
    """What the model expects at the pack's supervised tokens. The head is computed at those tokens only."""
    device = model.device
    with torch.autocast(device.type, torch.bfloat16, enabled=model.get_base_model().dtype is torch.bfloat16):
        return model(
            input_ids=pack.tokens.to(device),
            position_ids=pack.positions.to(device),
            logits_to_keep=pack.supervised.to(device),
            lengths=pack.lengths,
            use_cache=False,
        ).logits[0]


def save(tuned: PeftModel, base: Base, model: schema.Model, folder: Path) -> None:
    """Write the adapter as plain PEFT, with the tokenizer and the prompt's template. It names its base by Hub id and commit."""
    config = tuned.peft_config["default"]
    config.base_model_name_or_path = model.id
    config.revision = base.revision
    # save_embedding_layers="auto", PEFT's default, asks the Hub for the base model's vocabulary size.
    tuned.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the card is made from the record
    base.tokenizer.save_pretrained(folder)


def greedy(base: Base, stops: list[int]) -> None:
    """From here on `generate` takes the likeliest token, whatever the model's own generation settings say."""
    base.model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=base.tokenizer.pad_token_id, do_sample=False)


def device() -> torch.device:
    return torch.device("cuda" if has_gpu() else "cpu")


def has_gpu() -> bool:
    return torch.cuda.is_available()


def peak_memory() -> int:
    """Bytes that this process needed at its fullest: on the device if there is one, else of the machine's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _precision(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bf16, as this GPU computes it natively"
        return torch.float32, "fp32, as this GPU has no bf16 and fp16 overflows"
    able = torch.cpu.get_capabilities()
    if able.get("amx_bf16") or able.get("avx512_bf16"):
        return torch.bfloat16, "bf16, as this CPU computes it natively"
    return torch.float32, "fp32, as this CPU only emulates bf16"


def _nf4(quant: schema.Quant, dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=quant.double, bnb_4bit_compute_dtype=dtype
    )


def _listed(tokens: int | list[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
