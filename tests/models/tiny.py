"""Tiny models with real architectures: one per kind of cache that a layer can have.

Weights of two dimensions and more are scaled by 3, so that the output follows the context: with the
default initialisation a tiny model repeats one token whatever its cache contains.
"""

from enum import StrEnum
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models import baichuan_m1, gpt_oss, qwen3, qwen3_next

WEIGHT_SCALE = 3.0


class Family(StrEnum):
    """The cache classes that a family mixes."""

    DENSE = "dense"
    SLIDING = "sliding"
    HYBRID = "hybrid"
    # Convolution state, full attention and sliding windows, paired in each layer.
    MIXED = "mixed"
    # Dense with heads of 64, which KV quantisation needs.
    WIDE = "wide"


def config(family: Family, vocabulary: int = 300, **changes: Any) -> dict[str, Any]:
    """The config.json of a tiny model."""
    return _CONFIGS[family] | {"vocab_size": vocabulary} | changes


def build(family: Family, vocabulary: int = 300, *, seed: int = 0, **changes: Any) -> Any:
    """A model with random, context-sensitive weights."""
    values = config(family, vocabulary, **changes)
    module = _MODULES[family]
    mx.random.seed(seed)
    model = module.Model(module.ModelArgs.from_dict(values))
    model.update(tree_map(_lively, model.parameters()))
    mx.eval(model.parameters())
    return model


def _lively(weight: mx.array) -> mx.array:
    """Replaces weights of zero, with which some architectures begin, since they disable a path."""
    if weight.ndim < 2:
        return weight
    if not weight.any():
        return mx.random.normal(weight.shape)
    return weight * WEIGHT_SCALE


_MODULES: dict[Family, Any] = {
    Family.DENSE: qwen3,
    Family.SLIDING: gpt_oss,
    Family.HYBRID: qwen3_next,
    Family.MIXED: baichuan_m1,
    Family.WIDE: qwen3,
}

_CONFIGS: dict[Family, dict[str, Any]] = {
    Family.DENSE: {
        "model_type": "qwen3",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    Family.SLIDING: {
        "model_type": "gpt_oss",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "sliding_window": 32,
        "rope_theta": 10000,
        "max_position_embeddings": 32768,
    },
    Family.HYBRID: {
        "model_type": "qwen3_next",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 1,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 16,
        "mlp_only_layers": [],
        "moe_intermediate_size": 16,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 32768,
        "full_attention_interval": 2,
    },
    Family.MIXED: {
        "model_type": "baichuan_m1",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
        "sliding_window": 32,
        "sliding_window_layers": [1, 3],
        "conv_window": 2,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
    },
    Family.WIDE: {
        "model_type": "qwen3",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
}
