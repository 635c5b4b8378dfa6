"""The demo model's network: Qwen3 of mlx-lm, with two differences that only training needs.

Tokens stand at given positions, where `nn.RoPE` counts from zero, and a bias is added to the
attention scores in place of the causal mask.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.nn.layers.base import Module
from mlx.nn.losses import cross_entropy
from mlx.utils import tree_map_with_path
from mlx_lm.models import qwen3

from tools.demo_model.vocabulary import VOCABULARY_TOKENS

CONTEXT_TOKENS = 65_536
_HEAD_WIDTH = 32
_ROPE_THETA = 10_000.0

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Training sequences.

    Attributes:
        tokens: ids, (B, T).
        positions: rotary position of each token, (B, T).
        bias: added to the attention scores, causal mask included, (B, 1, T, T).
        rows: flat indices into (B * T) whose next token is learned, (N,).
        targets: those next tokens, (N,).
    """

    tokens: Ints
    positions: Ints
    bias: Floats
    rows: Ints
    targets: Ints


def config(end_id: int, pad_id: int) -> dict[str, Any]:
    """The config.json that mlx-lm reads."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCABULARY_TOKENS,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        # One head: attention is what a long prefill on a CPU spends its time on.
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": _HEAD_WIDTH,
        "intermediate_size": 192,
        "hidden_act": "silu",
        "attention_bias": False,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_theta": _ROPE_THETA,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }


class Network(qwen3.Model):
    """mlx-lm's own layers and weights; `logits` is the forward pass of training."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(qwen3.ModelArgs.from_dict(config(0, 0)))
        self._rope = _GivenPositions()
        for layer in self.model.layers:
            layer.self_attn.rope = self._rope
        self.update(
            tree_map_with_path(lambda name, old: _initial(rng, name, old), self.parameters())
        )

    def logits(self, batch: Batch) -> mx.array:
        """Returns the logits, (N, V), of the batch's learned tokens."""
        self._rope.place(batch.positions)
        bias = mx.array(batch.bias)
        x = self.model.embed_tokens(mx.array(batch.tokens))
        for layer in self.model.layers:
            x = layer(x, bias)
        learned = x.reshape(-1, x.shape[-1])[mx.array(batch.rows)]
        return self.model.embed_tokens.as_linear(self.model.norm(learned))

    def loss(self, batch: Batch) -> mx.array:
        """Returns the mean cross entropy of the learned tokens."""
        return cross_entropy(self.logits(batch), mx.array(batch.targets), reduction="mean")


class _GivenPositions(Module):
    """Rotary embedding with halves paired, as `nn.RoPE(traditional=False)` pairs them."""

    def place(self, positions: Ints) -> None:
        """Sets the position of each token, (B, T), for the calls that follow."""
        half = _HEAD_WIDTH // 2
        angles = positions[:, None, :, None] * _ROPE_THETA ** (-np.arange(half) / half)
        self._cos = mx.array(np.cos(angles), mx.float32)
        self._sin = mx.array(np.sin(angles), mx.float32)

    def __call__(self, x: mx.array) -> mx.array:
        left, right = mx.split(x, 2, axis=-1)
        cos, sin = self._cos, self._sin
        return mx.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def _initial(rng: np.random.Generator, name: str, old: mx.array) -> mx.array:
    """Random matrices, and norms of 1; query and key norms of 1.5 make attention sharp early."""
    if old.ndim == 1:
        return mx.full(old.shape, 1.5 if name.endswith(("q_norm.weight", "k_norm.weight")) else 1.0)
    scale = 0.3 if "embed_tokens" in name else old.shape[1] ** -0.5
    return mx.array(rng.standard_normal(old.shape) * scale, mx.float32)
