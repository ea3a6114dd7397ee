"""What each lever of training is worth: a step as it is shipped, beside the same step without one lever at a time.

    python tests/bench/levers.py --rounds 2

SmolLM2-135M on this machine's CPU, the rows and settings of `inv bench.trainer`. Each turn is a process of its own, so that memory
is its own, too; its first step is not timed. Right before each turn without a lever comes one as it is shipped, and a ratio is made of
the two: a shared machine may be half as fast ten minutes later.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)


def each_row_alone(settings, base) -> None:
    settings.train.pack_tokens = None


def nothing_shared(settings, base) -> None:
    from trainer.model import packing

    packing.common_prefix_length = lambda rows: 0


def head_everywhere(settings, base) -> None:
    """Logits of all tokens, of which those with loss are taken."""
    from trainer.model import model

    def everywhere(tuned, one, noise=0.0):
        inputs = {"input_ids": one.tokens, "position_ids": one.positions, "lengths": one.lengths, "use_cache": False}
        return tuned(**inputs).logits[0][one.supervised]

    model.logits = everywhere


def mask_of_the_pack(settings, base) -> None:
    """Every token beside every other one of the pack, and a mask that throws most of it away."""
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def whole(module, query, key, value, _mask, *, lengths, **options):
        row = torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)])
        seen = ((row[:, None] == row) | (row == 0)).tril()
        return sdpa_attention_forward(module, query, key, value, seen[None, None], **options)

    AttentionInterface.register("packed", whole)


def recomputed(settings, base) -> None:
    base.model.gradient_checkpointing_enable({"use_reentrant": False})


def one_weight_at_a_time(settings, base) -> None:
    settings.train.optimizer_options = {"fused": False, "foreach": False, "weight_decay": 0.0}


def compiled(settings, base) -> None:
    """Not shipped: every layer by torch.compile, but for attention, whose sizes differ from pack to pack."""
    import torch
    from transformers import AttentionInterface

    from trainer.model import attention

    AttentionInterface.register("packed", torch.compiler.disable(attention._within_rows))
    for layer in base.model.model.layers:
        layer.compile(dynamic=True)


SHIPPED = "as shipped"
LEVERS: dict[str, Callable | None] = {
    SHIPPED: None,
    "each row alone, no packs": each_row_alone,
    "the rows' common beginning once for each": nothing_shared,
    "head at every token": head_everywhere,
    "attention over the whole pack, masked": mask_of_the_pack,
    "activations computed again": recomputed,
    "AdamW one weight at a time": one_weight_at_a_time,
    "not shipped: layers by torch.compile": compiled,
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--steps", type=int, default=2, help="timed steps of each turn")
    words.add_argument("--rounds", type=int, default=2, help="turns of each")
    words.add_argument("--rows", type=int, default=16, help="rows of a step")
    words.add_argument("--turn", choices=LEVERS, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.turn:
        print(json.dumps(turn(asked)))
        return
    print("| a step | tokens/s | of the shipped one before it | peak memory | loss, first and last step |\n|---|---|---|---|---|")
    base: list[dict] = []
    for name in [name for name in LEVERS if name != SHIPPED]:
        pairs = [(_turn(SHIPPED), _turn(name)) for _ in range(asked.rounds)]
        base += [shipped for shipped, _ in pairs]
        _tell(name, [other for _, other in pairs], statistics.median(other["tokens_s"] / shipped["tokens_s"] for shipped, other in pairs))
    _tell(SHIPPED, base, 1.0)


def _turn(name: str) -> dict:
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--turn", name], text=True, capture_output=True, env=os.environ)
    if done.returncode:
        sys.exit(f"the turn `{name}` failed\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _tell(name: str, turns: list[dict], ratio: float) -> None:
    speed, peak = statistics.median(one["tokens_s"] for one in turns), max(one["peak"] for one in turns)
    losses = turns[0]["losses"]
    print(f"| {name} | {speed:.0f} | {ratio:.2f} | {peak / 1e9:.1f} GB | {losses[0]:.4f} {losses[-1]:.4f} |", flush=True)


def turn(asked: argparse.Namespace) -> dict:
    """A few steps of training without one lever."""
    from tests.bench import trainer as bench

    return bench.ours(argparse.Namespace(steps=asked.steps, rows=asked.rows, pack_tokens=4096, shape=None), LEVERS[asked.turn])


if __name__ == "__main__":
    main()
