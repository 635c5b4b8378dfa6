"""Between live caches and segments: cutting KV out of one, putting one together from many."""

from collections.abc import Sequence

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, evaluate
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.tree import Node, SegmentArrays
from anyclaude.mlx.tokens import TokenArray


def extract(live: LiveCache, start: int, end: int) -> SegmentArrays:
    """Copies the KV of the tokens from `start` to `end` out of the full-attention layers."""
    arrays = [
        kinds.sliced(leaf, start, end)
        for leaf in kinds.leaves(live.layers)
        if kinds.is_full_attention(leaf)
    ]
    mx.eval(arrays)
    return arrays


def assemble(
    model: LanguageModel,
    nodes: Sequence[Node],
    prompt: TokenArray,
    n: int,
    *,
    room_tokens: int,
    kv_bits: int,
    max_checkpoints: int,
) -> LiveCache:
    """A live cache of the first `n` tokens, from the segments that hold them.

    One copy, each layer's segments at once. Layers that need a state take the one saved at `n`.
    """
    used = [node for node in nodes if node.start < n]
    layers = kinds.new_layers(model, kv_bits)
    leaves, position = kinds.leaves(layers), 0
    for index, leaf in enumerate(leaves):
        if kinds.is_full_attention(leaf):
            pieces = [_piece(node, position, n) for node in used]
            leaves[index] = kinds.assembled(leaf, pieces, n, room_tokens)
            position += 1
        else:
            leaves[index] = kinds.copied(used[-1].states[index], n)
    evaluate(leaves)
    # Saved states are never written to, so the live cache may hold them as well.
    checkpoints = {node.end: node.states for node in used if node.states and node.end <= n}
    return LiveCache(
        kinds.replace_leaves(layers, leaves),
        prompt[:n],
        checkpoints,
        max_checkpoints=max_checkpoints,
    )


def _piece(node: Node, leaf_position: int, n: int) -> tuple[mx.array, ...]:
    assert node.arrays is not None
    arrays = node.arrays[leaf_position]
    if node.end <= n:
        return arrays
    return tuple(array[..., : n - node.start, :] for array in arrays)
