"""What a card has to show, in one command of at most ten minutes: `inv bench.trainer --shape llama31-8b`.

The proof of the packed step and the kernels that it takes; training in NF4, with MFU, tokens a second and peak memory beside the plan;
the same row by row; how often the host waits for the card in a step; scoring; a run that is killed and goes on; TRL on the same rows. Each
part stands alone: one that cannot be shown says why, and the others go on. `--shape toy` tries the command itself, on any machine.
"""

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.bench import trainer as bench

MINUTES = 10
STEPS, KILLED_AFTER = 6, 2  # of the run that is killed
ANSWERS, TOKENS = 8, 32  # rows that are scored at once, and tokens of an answer


class NotShown(Exception):
    """Why a part has no figures."""


def show(asked: argparse.Namespace) -> None:
    """Every part in turn; the last line says how many were shown, and in how many seconds."""
    begun = time.monotonic()
    clock = Clock(begun + MINUTES * 60)
    ours = _part("proof and training", lambda: _tell_ours(clock.turn("card", sys.executable)))
    shown = [ours, _part("kill and resume", lambda: _kill_and_resume(clock)), _part("TRL", lambda: _tell_trl(clock, ours))]
    print(f"{sum(part is not None for part in shown)} of {len(shown)} parts shown in {time.monotonic() - begun:.0f} s", flush=True)


class Clock:
    """What is left of the ten minutes."""

    def __init__(self, deadline: float):
        self.deadline = deadline

    def turn(self, name: str, python: str, *words: str) -> dict:
        """The figures of one turn; NotShown where it fails or takes longer than is left."""
        process = bench.turn(name, python, *words)
        try:
            out, errors = process.communicate(timeout=max(self.deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            process.kill()
            raise NotShown(f"it takes longer than what is left of {MINUTES} minutes") from None
        if process.returncode:
            lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("hint:")]
            raise NotShown((lines or [f"exit code {process.returncode}"])[-1])
        return json.loads(out.splitlines()[-1])


def _part(name: str, figures) -> dict | None:
    try:
        return figures()
    except NotShown as reason:
        print(f"{name}: not shown: {reason}", flush=True)
        return None


def _tell_ours(found: dict) -> dict:
    print(f"machine: {found['machine']}")
    print(f"proof: {found['proof']}")
    print(f"NF4 training: {found['tokens_s']:.1f} tokens/s{_share(found)}, gradient checkpointing: {found['recompute']}")
    print(f"losses: {found['losses']}")
    if found["allocated"]:
        ratio = found["allocated"] / found["planned"]
        sizes = [f"{found[name] / 1e9:.2f} GB {name}" for name in ("allocated", "planned")]
        print(f"peak memory: {', '.join(sizes)}, {ratio:.2f} times the plan; {found['peak'] / 1e9:.2f} GB reserved")
    else:
        print(f"peak memory: {found['peak'] / 1e9:.2f} GB of the process, {found['planned'] / 1e9:.2f} GB planned of tensors")
    if found["plain_tokens_s"]:
        print(f"row by row, all logits at once: {found['plain_tokens_s']:.1f} tokens/s")
    waits = "not counted without a GPU" if found["waits"] is None else found["waits"]
    print(f"the host waits in a step: {waits}")
    print(f"scoring: {found['scored_s']:.1f} tokens/s, at most {ANSWERS} rows at once", flush=True)
    return found


def _tell_trl(clock: Clock, ours: dict | None) -> dict:
    import environments

    try:
        python = bench.their_python()
    except environments.NotInstalled as reason:
        raise NotShown(str(reason)) from None
    found = clock.turn("trl", python)
    print(f"TRL: {found['tokens_s']:.1f} tokens/s{_share(found)}, {found['how']}, peak {found['peak'] / 1e9:.2f} GB")
    print(f"losses of TRL: {found['losses']}")
    if ours:
        speed, memory = ours["tokens_s"] / found["tokens_s"], ours["peak"] / found["peak"]
        print(f"ours is {speed:.2f} times as fast, in {memory:.2f} of the memory", flush=True)
    return found


def _share(found: dict) -> str:
    return "" if found["mfu"] is None else f", MFU {found['mfu']:.1%} ({found['formula']})"


def _kill_and_resume(clock: Clock) -> dict:
    """A run that nobody disturbs, and one that is killed with -9 and started again."""
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place, "whole"), Path(place, "killed")
        expected = clock.turn("run", sys.executable, "--folder", str(whole))
        process = bench.turn("run", sys.executable, "--folder", str(killed))
        while process.poll() is None and not (killed / f"step-{KILLED_AFTER:06}").exists() and time.monotonic() < clock.deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = clock.turn("run", sys.executable, "--folder", str(killed))
    if not 0 < found["from"] < STEPS:
        raise NotShown(f"the run was killed before or behind its steps: it went on from step {found['from']}")
    same = "the same bytes as" if found["adapter"] == expected["adapter"] else "other bytes than"
    print(f"kill and resume: went on from step {found['from']} of {STEPS}; {same} a run that nobody killed", flush=True)
    print(f"                 the norm of its adapter is {found['norm']:.6f}, of the other one {expected['norm']:.6f}", flush=True)
    return found


def measure(asked: argparse.Namespace) -> dict:
    """The turn `card`: proof, training with the kernels that it takes and without, scoring."""
    import torch

    from trainer.model import proof
    from trainer.model.kernels import Kernels

    settings, base, tuned, steps = bench.job(asked)
    proved = proof.verify_training(tuned, steps[0], settings.train)
    if not proved.packs:
        raise SystemExit(f"rows may not share a pack: {proved.why}")
    found = bench.timed(asked, settings, base, tuned, steps, proved.kernels)
    plain = None if proved.kernels == Kernels(told=proved.kernels.told) else bench.timed(asked, settings, base, tuned, steps, Kernels())
    gpu = torch.cuda.is_available()
    machine = f"{torch.cuda.get_device_name()}, sm{''.join(map(str, torch.cuda.get_device_capability()))}" if gpu else "a CPU"
    return found | {
        "machine": f"{machine}, torch {torch.__version__}, {base.model.dtype}",
        "proof": f"{proved.summary} ({proved.seconds:.1f} s)",
        "recompute": settings.train.gradient_checkpointing,
        "plain_tokens_s": plain and plain["tokens_s"],
        "waits": _waits(settings, base, tuned, steps[0], proved.kernels) if gpu else None,
        "scored_s": _scored(base, tuned, steps[0]),
    }


def _waits(settings, base, tuned, rows: list, kernels) -> int:
    """How often the host waits for the card in a step, as torch counts it: reading the loss at its end is one."""
    import torch

    from trainer.model import attention
    from trainer.model.distributed import ProcessGroup
    from trainer.train import loop, optimizer

    learner = optimizer.build(tuned, settings.train)
    with attention.packed(base.model, kernels.attention), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        loop.training_step(1, rows, tuned, learner, bench.RATE, settings, ProcessGroup(), kernels.loss)
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def _scored(base, tuned, rows: list) -> float:
    """Tokens a second of greedy answers to some rows at once."""
    import torch

    length = min(len(row.prompt) for row in rows[:ANSWERS])
    prompts = torch.tensor([row.prompt[:length] for row in rows[:ANSWERS]], device=base.model.device)
    tuned.eval()
    options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode(), torch.autocast(base.model.device.type, torch.bfloat16, enabled=base.model.dtype is torch.bfloat16):
        tuned.generate(input_ids=prompts, **options | {"max_new_tokens": 2, "min_new_tokens": 2})
        begun = bench._now()
        tuned.generate(input_ids=prompts, **options)
    return len(prompts) * TOKENS / (bench._now() - begun)


def run(asked: argparse.Namespace) -> dict:
    """The turn `run`: a few steps with a checkpoint behind each, from the newest one that the folder has."""
    import torch

    from trainer.model import attention, proof
    from trainer.model.distributed import ProcessGroup
    from trainer.train import checkpoint, loop, optimizer

    asked.steps = STEPS - 1
    settings, base, tuned, steps = bench.job(asked)
    proved = proof.verify_training(tuned, steps[0], settings.train)
    settings, kernels = proved.apply(settings), proved.kernels
    learner, store = optimizer.build(tuned, settings.train), checkpoint.CheckpointStore(asked.folder, "card", 2)
    progress = store.resume(tuned, learner)
    begun = progress.step
    with attention.for_pack_tokens(base.model, settings.train.pack_tokens, kernels.attention):
        for number in range(begun + 1, STEPS + 1):
            loop.training_step(number, steps[number - 1], tuned, learner, bench.RATE, settings, ProcessGroup(), kernels.loss)
            progress.step = number
            store.save(progress, tuned, learner)
    weights = [weight.detach().cpu() for weight in tuned.parameters() if weight.requires_grad]
    digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights)).hexdigest()
    return {
        "from": begun,
        "adapter": digest,
        "norm": torch.stack([weight.norm() for weight in weights]).norm().item(),
    }
