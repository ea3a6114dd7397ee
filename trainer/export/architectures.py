"""Which models can be written as GGUF: those of which a test has shown that llama.cpp computes from the file what transformers computes.

No torch: the laptop refuses all others before a run.
"""

from conf.problem import Problem
from conf.schema import Recipe
from trainer.export.vocabulary import WITHOUT

# By `model_type` of a config.json: the architecture as llama.cpp calls it.
NAMES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "smollm3": "smollm3", "granite": "granite"}
INTERLEAVED = ("llama", "smollm3", "granite")  # whose queries and keys llama.cpp turns in pairs of neighbours, not of halves
NO_ROPE_STEP = 4  # of SmolLM3 in llama.cpp: every fourth layer has no positions


def check_gguf(settings: Recipe, config: dict) -> None:
    """Nothing, or a Problem where the model with this config.json cannot be written as `publish.gguf` asks."""
    if settings.publish.gguf and (obstacle := _obstacle(config)):
        raise Problem(f"publish.gguf: {settings.model.id} cannot be written as GGUF: {obstacle}", WITHOUT, "refused")


def _obstacle(config: dict) -> str | None:
    kind = config.get("model_type")
    if kind not in NAMES:
        return f"its architecture is `{kind}`, and only {', '.join(NAMES)} are shown to be the same in llama.cpp"
    if config.get("hidden_act", "silu") != "silu":
        return f"its activation is {config['hidden_act']}, where llama.cpp has silu"
    if config.get("sliding_window") and config.get("use_sliding_window", kind == "mistral"):
        return "it reads through a sliding window"
    if NAMES[kind] != "llama" and (config.get("mlp_bias") or (config.get("attention_bias") and kind != "qwen2")):
        return f"it has biases, which llama.cpp's `{NAMES[kind]}` lacks"
    if (rope_type := rope(config)["rope_type"]) not in ("default", "llama3"):
        return f"its positions are of the kind `{rope_type}`"
    if kind == "smollm3" and config.get("no_rope_layers") not in (None, _every_fourth(config.get("num_hidden_layers", 0))):
        return "its layers without positions are not every fourth"
    return None


def rope(config: dict) -> dict:
    """How the model turns queries and keys by their position; releases of transformers keep it under two names."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    return {"rope_theta": config.get("rope_theta", 10000.0)} | parameters | {"rope_type": kind}


def _every_fourth(layers: int) -> list[int]:
    return [int((layer + 1) % NO_ROPE_STEP != 0) for layer in range(layers)]
