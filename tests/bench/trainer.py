"""Ours beside TRL: the same model, adapter, rows and numbers, a few steps of each in turn, real tokens a second and peak memory.

    python tests/bench/trainer.py                       SmolLM2-135M on this machine's CPU
    python tests/bench/trainer.py --shape llama31-8b    all that a card has to show (card.py), on random NF4 weights of Llama-3.1-8B's sizes

TRL gets its best settings that compute the same: no recomputation, loss on the completion only, the head at those tokens only
(its default), fused AdamW; packing where its attention can keep rows apart, which takes flash attention and so a GPU, else padded
batches of the size that is fastest (`--trl-batch`). Where the plan says that this does not fit the card, both recompute. Each turn is a
process of its own; the first step of each is not timed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tests/support")]  # `trainer` is the room, not this file
SMALL = ROOT / ".cache/models/smollm2-135m"
PLACE = ROOT / ".cache/bench/trl"
LLAMA = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
LLAMA |= {"vocab_size": 128256, "head_dim": 128, "rope_theta": 500000.0, "tie_word_embeddings": False, "max_position_embeddings": 8192}
SHAPES = {"llama31-8b": LLAMA, "toy": LLAMA | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 512}}
SHAPES["toy"] |= {"num_attention_heads": 8, "head_dim": 32}
ROW, ANSWER, COMMON = 220, 83, 39  # tokens of a row, of its answer, and of what all rows begin with: the shipped task's in Llama's tokens
RATE, SEED = 1e-3, 17
TURNS = ["ours", "trl", "card", "run"]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--steps", type=int, default=4, help="timed steps of each turn")
    words.add_argument("--rounds", type=int, default=2, help="turns of each")
    words.add_argument("--rows", type=int, default=16, help="rows of a step")
    words.add_argument("--trl-batch", type=int, default=4, help="rows that TRL pads together")
    words.add_argument("--pack-tokens", type=int, default=4096, help="tokens of a forward pass of ours")
    words.add_argument("--shape", choices=SHAPES, help="random NF4 weights of these sizes, in place of SmolLM2-135M")
    words.add_argument("--turn", choices=TURNS, help=argparse.SUPPRESS)
    words.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the turn `run`
    asked = words.parse_args()
    if asked.turn:
        from tests.bench import card

        print(json.dumps({"ours": ours, "trl": theirs, "card": card.measure, "run": card.run}[asked.turn](asked)))
    elif asked.shape:
        from tests.bench import card

        card.show(asked)
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Take turns, then print the medians and their ratios."""
    pythons = {"ours": sys.executable, "trl": their_python()}
    turns: dict[str, list[dict]] = {"ours": [], "trl": []}
    for number in range(asked.rounds):
        for name, python in pythons.items():
            turns[name].append(_turn(name, python))
            found = turns[name][-1]
            print(
                f"round {number + 1} {name:5}{found['tokens_s']:9.1f} tokens/s  peak {found['peak'] / 1e9:5.2f} GB  {found['how']}",
                flush=True,
            )
    speed, peak = ({name: statistics.median(turn[key] for turn in found) for name, found in turns.items()} for key in ("tokens_s", "peak"))
    apart = max(abs(one - other) for one, other in zip(turns["ours"][0]["losses"], turns["trl"][0]["losses"], strict=True))
    print(f"tokens/s: ours {speed['ours']:.1f}, TRL {speed['trl']:.1f}: {speed['ours'] / speed['trl']:.2f} times")
    print(f"peak memory: ours {peak['ours'] / 1e9:.2f} GB, TRL {peak['trl'] / 1e9:.2f} GB: {peak['ours'] / peak['trl']:.2f} times")
    print(f"losses, step by step, differ by at most {apart:.4f}: ours {turns['ours'][0]['losses']}, TRL {turns['trl'][0]['losses']}")
    for name, found in turns.items():
        if found[0]["mfu"] is not None:
            print(f"MFU of {name}: {statistics.median(turn['mfu'] for turn in found):.1%} ({found[0]['formula']})")


def their_python() -> str:
    """TRL's own environment, which also sees this one's packages."""
    import environments

    return str(environments.make(PLACE, ROOT / "tests/bench/requirements.txt"))


def turn(name: str, python: str, *words: str) -> subprocess.Popen:
    """A process of its own for one turn; its last line is its figures."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"WANDB_MODE": "disabled", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    command = [python, __file__, *sys.argv[1:], "--turn", name, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _turn(name: str, python: str) -> dict:
    process = turn(name, python)
    out, errors = process.communicate()
    if process.returncode:
        sys.exit(f"the turn of {name} failed\n{out[-2000:]}{errors[-4000:]}")
    return json.loads(out.splitlines()[-1])


def job(asked: argparse.Namespace):
    """The settings, the model with its new adapter, and the rows of every step: the same for both."""
    import torch

    from conf import load, schema
    from data.rows import Row, read
    from trainer.estimate import memory
    from trainer.model import model
    from trainer.rows import prompt
    from trainer.rows.sampler import Sampler, WeightedRows

    settings = load.load(["cloud=twin", "quant=none", f"train.lr={RATE}", "train.lr_scheduler=constant", "train.warmup_ratio=0"])
    settings.train.batch_size, settings.train.pack_tokens = asked.rows, asked.pack_tokens
    torch.manual_seed(SEED)
    if asked.shape:
        base = _random_base(SHAPES[asked.shape])
        generator = torch.Generator().manual_seed(SEED)
        size = SHAPES[asked.shape]["vocab_size"]
        start = torch.randint(3, size, (COMMON,), generator=generator).tolist()
        rest = torch.randint(3, size, (asked.rows * 4, ROW - COMMON), generator=generator).tolist()
        cut = ROW - COMMON - ANSWER
        rows = [prompt.Example(Row(str(n), [], "", None), start + each[:cut], each[cut:]) for n, each in enumerate(rest)]
        base = model.BaseModel(base, None, None, [], "", "sdpa")
    else:
        base = model.load(schema.Model(str(SMALL), "main", "", False), settings.quant)
        rows = prompt.Prompt(base.tokenizer, base.stops).examples(read(ROOT / "data/train.jsonl"), settings.data)
    order = Sampler([WeightedRows(rows)], SEED, asked.rows)
    steps = [order.batch(number) for number in range(1, asked.steps + 2)]
    settings.quant.kind = schema.Quantisation.nf4 if asked.shape else schema.Quantisation.none
    settings.train.gradient_checkpointing = "no"
    if torch.cuda.is_available():  # the weights are on the card already: what is free now says less
        room = torch.cuda.get_device_properties(0).total_memory * (1 - memory.RESERVE)
        settings.train.gradient_checkpointing = "yes" if planned(settings, base, steps) > room else "no"
    tuned = model.add_adapter(base, settings.lora, settings.train.gradient_checkpointing == "yes")
    return settings, base, tuned, steps


def planned(settings, base, steps: list) -> int:
    """Bytes of the fullest pack's step, as the plan of a run counts them."""
    from trainer.estimate import memory
    from trainer.model import model
    from trainer.model.packing import packs

    fullest = max((pack for rows in steps for pack in packs(rows, settings.train.pack_tokens)), key=lambda pack: pack.tokens.numel())
    load = memory.ForwardPass(fullest.tokens.numel(), fullest.lengths[1:], fullest.lengths[0], len(fullest.labels))
    return sum(memory.training_memory(model.shape_of_model(base.model), settings, load, base.model.dtype.itemsize).values())


def _random_base(sizes: dict):
    """A Llama of these sizes with random weights, every linear layer in NF4 with double quantisation, as it would be loaded."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    from trainer.model import nf4

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = LlamaConfig(**sizes, attn_implementation="sdpa")
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    for path, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and path != "lm_head":
            with torch.device("meta"):
                packed = Linear4bit(module.in_features, module.out_features, False, dtype, quant_type="nf4")
            weight = torch.randn(module.out_features, module.in_features, dtype=dtype, device=device) * 0.02
            packed.weight = Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True).to(device)
            model.set_submodule(path, packed)
    for path, weight in list(model.named_parameters()):
        if weight.is_meta:
            parent, _, name = path.rpartition(".")
            value = torch.ones if "norm" in path else torch.randn
            filled = value(weight.shape, dtype=dtype, device=device) * (1 if "norm" in path else 0.02)
            setattr(model.get_submodule(parent), name, torch.nn.Parameter(filled, requires_grad=False))
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.config.quantization_config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model.hf_quantizer = AutoHfQuantizer.from_config(model.config.quantization_config)
    model.is_loaded_in_4bit = model.is_quantized = True
    nf4.disable_repacking(model)
    return model


def ours(asked: argparse.Namespace, change: Callable | None = None) -> dict:
    """A few steps of ours; `change` may take settings and base model before the first one."""
    from trainer.model.kernels import Kernels

    settings, base, tuned, steps = job(asked)
    if change:
        change(settings, base)
    return timed(asked, settings, base, tuned, steps, Kernels())


def timed(asked: argparse.Namespace, settings, base, tuned, steps: list, kernels) -> dict:
    """The figures of these steps, with these kernels."""
    from trainer.model import attention
    from trainer.model.distributed import ProcessGroup
    from trainer.model.packing import packs
    from trainer.train import loop, optimizer

    learner, losses, marks = optimizer.build(tuned, settings.train), [], []
    with attention.packed(base.model, kernels.attention):
        for number, rows in enumerate(steps, start=1):
            marks.append(_now())
            losses.append(loop.training_step(number, rows, tuned, learner, RATE, settings, ProcessGroup(), kernels.loss)["loss"])
        marks.append(_now())
    how = f"packed, {len(packs(steps[0], settings.train.pack_tokens))} forward pass a step"
    return _figures(asked, base, marks, losses, steps, how) | {"planned": planned(settings, base, steps)}


def theirs(asked: argparse.Namespace) -> dict:
    import logging
    from importlib.util import find_spec
    from tempfile import mkdtemp

    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    logging.disable(logging.WARNING)
    settings, base, tuned, steps = job(asked)
    rows = [row for step in steps for row in step]
    table = Dataset.from_list(
        [{"input_ids": row.prompt + row.completion, "completion_mask": [0] * len(row.prompt) + [1] * len(row.completion)} for row in rows]
    )
    gpu, flash = torch.cuda.is_available(), find_spec("flash_attn") is not None
    batch = asked.rows if flash else asked.trl_batch
    if flash:
        base.model.set_attn_implementation("flash_attention_2")
    marks, losses = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            marks.append(_now())

        def on_log(self, _args, _state, _control, logs=None, **__):
            if "loss" in logs:
                losses.append(logs["loss"])

    arguments = SFTConfig(
        output_dir=mkdtemp(),
        max_steps=len(steps),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=asked.rows // batch,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        weight_decay=0.0,
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=settings.train.gradient_checkpointing == "yes",
        completion_only_loss=True,
        padding_free=flash,  # TRL's packing mixes steps; this lays a step's rows end to end without padding
        max_length=None,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
    )
    tokenizer = base.tokenizer or _any_tokenizer()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = SFTTrainer(model=tuned, args=arguments, train_dataset=table, processing_class=tokenizer, callbacks=[Clock()])
    sys.stdout, out = sys.stderr, sys.stdout  # its log is not the answer
    trainer.train()
    sys.stdout = out
    marks.append(_now())
    how = "one batch without padding, flash attention" if flash else f"padded batches of {batch}"
    return _figures(asked, base, marks, losses, steps, how)


def _any_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / ".cache/models/tiny")  # random rows are tokens already: it only pads


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _figures(asked, base, marks: list[float], losses: list[float], steps: list, how: str) -> dict:
    import torch

    from conf import load
    from trainer.estimate import memory
    from trainer.model import model

    tokens = sum(len(row) for step in steps[1:] for row in step)
    supervised = sum(row.learned for step in steps[1:] for row in step)
    seconds = marks[-1] - marks[1]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    made = model.shape_of_model(base.model)
    peak = gpu and memory.peak_flops(gpu)
    return {
        "tokens_s": tokens / seconds,
        "peak": torch.cuda.max_memory_reserved() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "allocated": torch.cuda.max_memory_allocated() if gpu else None,
        "losses": [round(loss, 4) for loss in losses],
        "how": how,
        "mfu": memory.mfu(made, load.load(["cloud=twin"]), tokens, supervised, seconds, gpu, 1),
        "formula": f"real tokens: 4 for a frozen weight, 6 for one of the adapter, 4 for the head where there is loss; of {peak} TFLOP/s",
    }


if __name__ == "__main__":
    main()
