"""A small random model of every class that transformers loads as a causal language model, and what training makes of it.

    python -m tests.unit.trainer.architectures     writes trainer/estimate/architectures.json and docs/ARCHITECTURES.md anew (minutes)

Each model is shrunk from its class's own default configuration: a few layers of every kind that it has, windows and chunks shorter than
the rows, weights large enough that attention matters. Nothing is fetched.
"""

import json
import re
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from conf import schema
from conf.problem import Problem
from trainer.model import model, proof
from trainer.rows.prompt import Example

ROOT = Path(__file__).parents[3]
TABLE, PAGE, SECONDS = ROOT / "trainer/estimate/architectures.json", ROOT / "docs/ARCHITECTURES.md", 300
WIDTH, INNER, LAYERS, HEADS, VOCABULARY, LONGEST, WINDOW = 64, 128, 6, 4, 300, 512, 12
SIZES = [
    (WIDTH, "hidden_size n_embd d_model dim embed_dim embedding_size"),
    (INNER, "intermediate_size ffn_dim n_inner d_ff decoder_ffn_dim encoder_ffn_dim ffn_hidden_size"),
    (LAYERS, "num_hidden_layers n_layer num_layers n_layers decoder_layers num_decoder_layers"),
    (HEADS, "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads num_heads linear_num_value_heads"),
    (2, "num_key_value_heads num_experts_per_tok moe_topk encoder_layers linear_num_key_heads n_group"),
    (1, "topk_group first_k_dense_replace"),
    (16, "head_dim kv_lora_rank qk_nope_head_dim v_head_dim mamba_d_state linear_key_head_dim linear_value_head_dim mamba_d_head"),
    (8, "qk_rope_head_dim mamba_n_heads rotary_dim"),
    (32, "moe_intermediate_size shared_expert_intermediate_size q_lora_rank"),
    (VOCABULARY, "vocab_size vocab_size_per_layer_input"),
    (LONGEST, "max_position_embeddings n_positions n_ctx"),
    (WINDOW, "sliding_window attention_chunk_size attention_window_size"),
    (6, "num_local_experts num_experts n_routed_experts moe_num_experts"),
]
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
OWN = {  # what single classes need besides
    "deepseek_v2": {"n_group": 2, "topk_group": 1},
    "blt": {"encoder_hash_byte_group_vocab": 500},  # else tables of 2 GB
    "ctrl": {"n_layer": 48},  # what fails in these three shows in their own depth only
    "prophetnet": {"num_decoder_layers": 12},
    "rwkv": {"num_hidden_layers": 32},
    "gemma3n_text": {"num_hidden_layers": 35},  # the lists that describe these layers have so many
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},  # its own default has no convolution
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "mamba2": {"num_heads": 8},
    "zamba": {"num_hidden_layers": 76},
    "zamba2": {"num_hidden_layers": 54},
    "zaya": {"num_experts_per_tok": 1},
}
SMALL = {name: size for size, names in SIZES for name in names.split()}


TRAIN = SimpleNamespace(pack_tokens=4096, neftune_noise_alpha=0.0)


def small(kind: str):
    """The model."""
    torch.manual_seed(0)
    small_model = AutoModelForCausalLM.from_config(shrunk(CONFIG_MAPPING[kind]), dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in small_model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return small_model


def shrunk(kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    """A small configuration; what the class derives from its numbers, it derives anew."""
    usual = vars(kind())
    parts = {name: shrunk(type(usual[name])) for name in kind.sub_configs if isinstance(usual.get(name), PreTrainedConfig)}
    sizes = {name: size for name, size in SMALL.items() if type(usual.get(name)) is int}
    if "qk_rope_head_dim" in sizes:  # the class's own head_dim follows from it
        sizes.pop("head_dim", None)
    if usual.get("num_key_value_heads") == usual.get("num_attention_heads"):  # some count on it
        sizes |= {"num_key_value_heads": HEADS} if "num_key_value_heads" in sizes else {}
    absent = {name: size for name, size in (("head_dim", 16), ("num_key_value_heads", HEADS)) if name in usual and usual[name] is None}
    tokens = {name: 0 for name in TOKENS if type(usual.get(name)) is int and usual[name] >= VOCABULARY}
    return kind(**sizes | absent | tokens | parts | OWN.get(kind.model_type, {}))


def rows() -> list[Example]:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, VOCABULARY, (3, 60), generator=draw).tolist()
    return [Example(None, tokens[0][:10] + own[10:40], own[40:]) for own in tokens]


def verdict(kind: str) -> dict[str, str]:
    """The class, what training makes of it (packed, alone, refused), and why."""
    of = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    try:
        with within(SECONDS):
            small_model = small(kind)
            of = type(small_model).__name__
            base = model.BaseModel(small_model, None, None, [], "fp32", small_model.config._attn_implementation)
            tuned = model.add_adapter(base, schema.Lora(4, 8, 0.0, "all-linear", {}), gradient_checkpointing=False)
            result = proof.verify_training(tuned, rows(), TRAIN)
            if result.packs and not sees_the_beginning(small_model) > 0.01:
                return {"of": of, "outcome": "refused", "why": "a small random model of it tells nothing: it forgets how a row began"}
    except Problem as problem:
        return {"of": of, "outcome": "refused", "why": short(problem.what)}
    except Exception as error:
        return {
            "of": of,
            "outcome": "refused",
            "why": short(f"no small model of it can be made without a network: {type(error).__name__}: {error}"),
        }
    why = result.why.removeprefix("rows are trained one at a time: ")
    values = {"of": of, "outcome": "packed" if result.packs else "alone", "why": "" if result.packs else short(why)}
    return values if small_model.supports_gradient_checkpointing else values | {"gradient_checkpointing": False}


def short(text: str) -> str:
    """The first sentence, without what differs from machine to machine."""
    return re.sub(r" \((logits|gradients|a neighbour's change).*\)$", "", text.splitlines()[0].replace("base_model.model.", ""))[:160]


def sees_the_beginning(small_model) -> float:
    """How much the last logits of a row follow from its first token: were it nothing, no comparison of packs would tell anything."""
    tokens = rows()[0].prompt
    changed = [proof._other_token(tokens[0]), *tokens[1:]]
    with torch.no_grad():
        one, other = (small_model(input_ids=torch.tensor([each]), use_cache=False).logits[0, -1] for each in (tokens, changed))
    return ((one - other).norm() / one.norm()).item()


@contextmanager
def within(seconds: int):
    def late(*_):
        raise TimeoutError(f"not within {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def page(verdicts: dict[str, dict[str, str]]) -> str:
    """The table of docs/ARCHITECTURES.md."""
    words = {"packed": "in packs", "alone": "a row at a time", "refused": "refused"}
    counted = Counter(values["outcome"] for values in verdicts.values())
    lines = [HEAD.format(version=transformers.__version__, **counted), "| `model_type` | class | trained | why |", "|---|---|---|---|"]
    for kind, values in sorted(verdicts.items(), key=lambda item: (list(words).index(item[1]["outcome"]), item[0])):
        why = "; ".join([values["why"]] * bool(values["why"]) + [KEEPS] * (not values.get("gradient_checkpointing", True)))
        lines.append(f"| `{kind}` | {values['of']} | {words[values['outcome']]} | {why.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


KEEPS = "all activations are kept: transformers has no gradient checkpointing for this class"
HEAD = """# Architectures

What training makes of each class that transformers {version} loads as a causal language model. This page and
`trainer/estimate/architectures.json` are made by `python -m tests.unit.trainer.architectures`, which trains a small random model of each
class by the proof that every run begins with; `tests/unit/trainer/estimate/test_architectures.py` (in `make test-all`) makes them again.
{packed} are trained in packs, {alone} a row at a time because packed rows would see each other or the class takes no packs, {refused} are
refused, and so is whatever is not listed.
An adapter on all linear layers is what is tried; a run's own proof has the last word.
"""


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    verdicts = {}
    for kind in sys.argv[1:] or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        verdicts[kind] = verdict(kind)
        print(kind, *verdicts[kind].values(), sep=" | ", flush=True)
    if not sys.argv[1:]:
        TABLE.write_text(json.dumps(verdicts, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(verdicts), encoding="utf-8")


if __name__ == "__main__":
    main()
