"""Llama-3.1-8B's sizes, as its safetensors files list its tensors."""

from trainer.estimate.shape import Tensor, shape

CONFIG = {"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}
HIDDEN, INNER, LAYERS, KEYS, VOCABULARY = 4096, 14336, 32, 1024, 128256
LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}
OUTSIDE = {"model.embed_tokens": (VOCABULARY, HIDDEN), "model.norm": (HIDDEN,), "lm_head": (VOCABULARY, HIDDEN)}
SIZES = OUTSIDE | {f"model.layers.{number}.{name}": sizes for number in range(LAYERS) for name, sizes in LAYER.items()}
TENSORS = {f"{name}.weight": Tensor(sizes, "BF16") for name, sizes in SIZES.items()}
LLAMA_8B = shape(TENSORS, CONFIG)
