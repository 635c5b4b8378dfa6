"""What can be done to one layer's cache, decided by its class.

Three kinds:
  - full attention (KVCache, QuantizedKVCache): can be cut back to any length;
  - sliding window (our WindowKVCache): can be cut back while it has the keys of the new end;
  - anything else (recurrent state, chunked attention): only a saved state restores it. mlx-lm's
    `is_trimmable()` is not used: a sliding window returns True until it is full.

Composite layers (CacheList) are flattened, so the rest of the package sees a list of leaves.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx
from anyclaude.mlx.adapter import (
    QUANTIZATION_GROUP,
    CacheList,
    KVCache,
    LanguageModel,
    Layer,
    QuantizedKVCache,
    RotatingKVCache,
    make_prompt_cache,
)
from anyclaude.mlx.kv.window import WindowKVCache


def new_layers(model: LanguageModel, kv_bits: int = 0) -> list[Layer]:
    """An empty cache for `model`, one entry per layer, of classes that can be cut exactly.

    With 8 or 4 `kv_bits`, full attention is quantised from the first token.
    """
    return [_ours(layer, kv_bits) for layer in make_prompt_cache(model)]


def leaves(layers: list[Layer]) -> list[Layer]:
    """The layers with composites flattened, in a fixed order."""
    return [leaf for layer in layers for leaf in _parts(layer)]


def is_full_attention(leaf: Layer) -> bool:
    return type(leaf) in (KVCache, QuantizedKVCache)


def can_cut(leaf: Layer, n: int, length: int) -> bool:
    """Whether `leaf`, now `length` tokens long, can be cut back to `n` without a saved state."""
    if n == length or is_full_attention(leaf):
        return True
    return isinstance(leaf, WindowKVCache) and n >= leaf.earliest_cut()


def can_drop_latest(leaf: Layer) -> bool:
    """Whether the tokens of the latest pass can be taken out of `leaf` without a saved state."""
    return is_full_attention(leaf) or isinstance(leaf, WindowKVCache)


def cut(leaf: Layer, n: int, length: int) -> None:
    """Cuts a leaf that `can_cut`."""
    if n != length:
        leaf.trim(length - n)


def copied(leaf: Layer, n: int) -> Layer:
    """A copy of the leaf, cut to `n`, that later writes to the leaf do not change."""
    if isinstance(leaf, WindowKVCache):
        return leaf.compacted(n)
    # deepcopy shares buffers until either side writes. copy.copy and from_state would alias them: a
    # cache object writes its arrays in place.
    return copy.deepcopy(leaf)


def forked(leaf: Layer, n: int, spare_tokens: int) -> Layer:
    """A full-attention leaf cut to `n`, with buffers of its own that have `spare_tokens` more."""
    fork = copy.copy(leaf)
    fork.offset = n
    if leaf.keys is not None:
        fork.keys = _map(leaf.keys, lambda a: _resized(a, n, spare_tokens))
        fork.values = _map(leaf.values, lambda a: _resized(a, n, spare_tokens))
    return fork


def sliced(leaf: Layer, start: int, end: int) -> tuple[mx.array, ...]:
    """Copies of a full-attention leaf's arrays for the tokens from `start` to `end`."""
    arrays = [*_as_list(leaf.keys), *_as_list(leaf.values)]
    return tuple(mx.contiguous(array[..., start:end, :]) for array in arrays)


def as_floats(leaf: Layer, arrays: tuple[mx.array, ...]) -> tuple[mx.array, mx.array]:
    """Keys and values in float32 of what `sliced` returned for a leaf, dequantised if need be."""
    if type(leaf) is QuantizedKVCache:
        keys, values = (
            mx.dequantize(packed, scales, biases, group_size=leaf.group_size, bits=leaf.bits)
            for packed, scales, biases in (arrays[:3], arrays[3:])
        )
    else:
        keys, values = arrays
    return keys.astype(mx.float32), values.astype(mx.float32)


def assembled(
    leaf: Layer, pieces: Sequence[tuple[mx.array, ...]], n: int, spare_tokens: int
) -> Layer:
    """The empty full-attention `leaf`, filled with `n` tokens given in pieces, in order."""
    joined = [
        mx.concatenate([*parts, _spare(parts[0], spare_tokens)], axis=-2)
        for parts in zip(*pieces, strict=True)
    ]
    half = len(joined) // 2
    leaf.keys, leaf.values = joined[:half], joined[half:]
    if half == 1:
        leaf.keys, leaf.values = joined
    leaf.offset = n
    return leaf


def reserve(leaf: Layer, tokens: int) -> None:
    """Makes the next growth of a full-attention leaf `tokens` long.

    mlx-lm grows by 256 tokens and copies the whole buffer each time.
    """
    if is_full_attention(leaf):
        leaf.step = max(type(leaf).step, tokens)


def replace_leaves(layers: list[Layer], new: list[Layer]) -> list[Layer]:
    """The layers with their leaves replaced by `new`, which has the order of `leaves()`."""
    remaining = iter(new)
    return [_rebuilt(layer, remaining) for layer in layers]


def nbytes(leaf: Layer) -> int:
    """Bytes of the leaf's buffers, spare space included."""
    return 0 if leaf.empty() else int(leaf.nbytes)


def bytes_per_token(layers: list[Layer]) -> float:
    """Bytes that one more token costs in the layers that grow; 0 while they are empty."""
    return sum(
        nbytes(leaf) / _capacity(leaf)
        for leaf in leaves(layers)
        if is_full_attention(leaf) and leaf.keys is not None
    )


def _ours(layer: Layer, kv_bits: int) -> Layer:
    if type(layer) is CacheList:
        return _composite(_ours(part, kv_bits) for part in layer.caches)
    if type(layer) is RotatingKVCache and layer.keep == 0:
        return WindowKVCache(layer.max_size)
    if type(layer) is KVCache and kv_bits:
        return QuantizedKVCache(group_size=QUANTIZATION_GROUP, bits=kv_bits)
    return layer


def _parts(layer: Layer) -> list[Layer]:
    if type(layer) is CacheList:
        return [leaf for part in layer.caches for leaf in _parts(part)]
    return [layer]


def _composite(parts: Iterable[Layer]) -> Layer:
    return CacheList(*parts)  # type: ignore[no-untyped-call]


def _rebuilt(layer: Layer, remaining: Iterator[Layer]) -> Layer:
    if type(layer) is CacheList:
        return _composite(_rebuilt(part, remaining) for part in layer.caches)
    return next(remaining)


def _map(arrays: Any, change: Any) -> Any:
    """Applies `change` to an array, or to each of a quantised triple."""
    if isinstance(arrays, mx.array):
        return change(arrays)
    # A list, since QuantizedKVCache assigns into its elements.
    return [change(array) for array in arrays]


def _resized(array: mx.array, n: int, spare_tokens: int) -> mx.array:
    return mx.concatenate([array[..., :n, :], _spare(array, spare_tokens)], axis=-2)


def _spare(like: mx.array, tokens: int) -> mx.array:
    return mx.zeros((*like.shape[:-2], tokens, like.shape[-1]), like.dtype)


def _as_list(arrays: Any) -> list[mx.array]:
    return [arrays] if isinstance(arrays, mx.array) else list(arrays)


def _capacity(leaf: Layer) -> int:
    keys = leaf.keys if isinstance(leaf.keys, mx.array) else leaf.keys[0]
    return int(keys.shape[-2])
