"""The demo model's shape, its weights by Hugging Face name, and its loss.

The forward pass is Qwen3's as mlx-lm computes it, with two differences that only training
needs: positions are given, not counted, and a bias may be added to the attention scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.demo_model.tape import Floats, Ints, Node, Tape
from tools.demo_model.vocabulary import VOCABULARY_TOKENS

CONTEXT_TOKENS = 65_536
HIDDEN = 64
LAYERS = 2
# One head: attention is what a long prefill on a CPU spends its time on.
HEADS = 1
HEAD_WIDTH = 32
FEED_FORWARD = 192
ROPE_THETA = 10_000.0
NORM_EPS = 1e-6

Weights = dict[str, Floats]


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


def config(end_id: int, pad_id: int) -> dict[str, object]:
    """The config.json that mlx-lm reads."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCABULARY_TOKENS,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_WIDTH,
        "intermediate_size": FEED_FORWARD,
        "hidden_act": "silu",
        "attention_bias": False,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_theta": ROPE_THETA,
        "rms_norm_eps": NORM_EPS,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }


def initial_weights(rng: np.random.Generator) -> Weights:
    """Random weights; query and key norms start at 1.5 so that attention can be sharp early."""
    weights = {"model.embed_tokens.weight": _normal(rng, 0.3, VOCABULARY_TOKENS, HIDDEN)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        for part, out, into in _MATRICES:
            weights[f"{name}{part}.weight"] = _normal(rng, into**-0.5, out, into)
        weights[f"{name}self_attn.q_norm.weight"] = np.full(HEAD_WIDTH, 1.5, np.float32)
        weights[f"{name}self_attn.k_norm.weight"] = np.full(HEAD_WIDTH, 1.5, np.float32)
        weights[f"{name}input_layernorm.weight"] = np.ones(HIDDEN, np.float32)
        weights[f"{name}post_attention_layernorm.weight"] = np.ones(HIDDEN, np.float32)
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    return weights


_MATRICES = (
    ("self_attn.q_proj", HEADS * HEAD_WIDTH, HIDDEN),
    ("self_attn.k_proj", HEAD_WIDTH, HIDDEN),
    ("self_attn.v_proj", HEAD_WIDTH, HIDDEN),
    ("self_attn.o_proj", HIDDEN, HEADS * HEAD_WIDTH),
    ("mlp.gate_proj", FEED_FORWARD, HIDDEN),
    ("mlp.up_proj", FEED_FORWARD, HIDDEN),
    ("mlp.down_proj", HIDDEN, FEED_FORWARD),
)


def _normal(rng: np.random.Generator, scale: float, *shape: int) -> Floats:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def loss_and_gradients(weights: Weights, batch: Batch) -> tuple[float, Weights]:
    """Return the mean loss over the batch's learned tokens and its gradient by weight."""
    nodes = {name: Node(value) for name, value in weights.items()}
    tape = Tape()
    loss = tape.cross_entropy(_logits(tape, nodes, batch), batch.targets)
    tape.backward(loss)
    return float(loss.value), {name: node.taken() for name, node in nodes.items()}


def logits(weights: Weights, batch: Batch) -> Floats:
    """Return the logits, (N, V), of the batch's learned tokens."""
    return _logits(Tape(), {name: Node(value) for name, value in weights.items()}, batch).value


def _logits(tape: Tape, nodes: Mapping[str, Node], batch: Batch) -> Node:
    embedding = nodes["model.embed_tokens.weight"]
    cos, sin = _angles(batch.positions)
    x = tape.rows(embedding, batch.tokens.reshape(-1))
    for layer in range(LAYERS):
        part = _LayerPart(tape, nodes, f"model.layers.{layer}.")
        x = tape.add(x, part.attention(x, cos, sin, batch.bias))
        x = tape.add(x, part.feed_forward(x))
    learned = tape.rows(x, batch.rows)
    return tape.linear(tape.rms_norm(learned, nodes["model.norm.weight"], NORM_EPS), embedding)


def _angles(positions: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    half = HEAD_WIDTH // 2
    frequencies = ROPE_THETA ** (-np.arange(half) / half)
    angles = positions[:, :, None, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


@dataclass(frozen=True)
class _LayerPart:
    tape: Tape
    nodes: Mapping[str, Node]
    prefix: str

    def _weight(self, name: str) -> Node:
        return self.nodes[f"{self.prefix}{name}.weight"]

    def _linear(self, x: Node, name: str) -> Node:
        return self.tape.linear(x, self._weight(name))

    def _norm(self, x: Node, name: str) -> Node:
        return self.tape.rms_norm(x, self._weight(name), NORM_EPS)

    def attention(self, x: Node, cos: Floats, sin: Floats, bias: Floats) -> Node:
        tape, (batch, length) = self.tape, cos.shape[:2]
        x = self._norm(x, "input_layernorm")
        q = tape.reshape(self._linear(x, "self_attn.q_proj"), batch, length, HEADS, HEAD_WIDTH)
        k = tape.reshape(self._linear(x, "self_attn.k_proj"), batch, length, 1, HEAD_WIDTH)
        v = tape.reshape(self._linear(x, "self_attn.v_proj"), batch, length, 1, HEAD_WIDTH)
        q = tape.rotate(self._norm(q, "self_attn.q_norm"), cos, sin)
        k = tape.rotate(self._norm(k, "self_attn.k_norm"), cos, sin)
        mixed = tape.reshape(tape.attend(q, k, v, bias), batch * length, HEADS * HEAD_WIDTH)
        return self._linear(mixed, "self_attn.o_proj")

    def feed_forward(self, x: Node) -> Node:
        x = self._norm(x, "post_attention_layernorm")
        gate, up = self._linear(x, "mlp.gate_proj"), self._linear(x, "mlp.up_proj")
        return self._linear(self.tape.swiglu(gate, up), "mlp.down_proj")
