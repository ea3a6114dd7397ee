"""Small random models of every architecture that is written as GGUF, in a folder each, as a merged model lies there."""

import shutil
from pathlib import Path

import torch
import transformers

SIZES = {
    "vocab_size": 704,  # more than the tokenizer has, as in many models
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SCALED = {"attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0}
MADE = {  # transformers' class, and what sets the model apart
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    "llama with stretched positions": ("Llama", {"rope_parameters": STRETCHED}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "smollm3": ("SmolLM3", {"use_sliding_window": False}),
    "granite": ("Granite", SCALED),
}


def make(name: str, tiny: Path, folder: Path) -> transformers.PreTrainedModel:
    """The random model in the folder, with the tiny model's tokenizer: its weights are large enough to expect something."""
    kind, own = MADE[name]
    config = getattr(transformers, f"{kind}Config")(**SIZES | {"tie_word_embeddings": False} | own)
    torch.manual_seed(3)
    made = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape) * (0.15 if weight.dim() > 1 else 0.3))
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    made.save_pretrained(folder)
    return made
