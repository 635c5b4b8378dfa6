"""Layers that stand in for those of several live caches, so that one pass computes a token of each.

A batch has one row for each live cache. Nothing is copied or padded: each row appends its keys and
values to its own cache, and attends to its own keys with the kernel that a pass of its own uses.
Only what does not look back (projections, experts, norms, the head) is computed for all rows
together. So the rows may have any lengths, and may join and leave between any two passes.
Multi-head latent attention computes with the cached keys itself: there, projections of attention
are computed for each row as well.

Recurrent layers have a state of fixed size: the states of the rows are put side by side for the
pass, and each row gets its own back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from anyclaude.mlx.adapter import ArraysCache, CacheList, Layer, Masks, attention
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.window import WindowKVCache


def side_by_side(caches: Sequence[list[Layer]], offsets: mx.array) -> list[Layer]:
    """One layer for the same layer of all `caches`, which hold so many tokens each.

    Raises:
        NotImplementedError: a layer's class has no form for several rows.
    """
    return [_joined(rows, offsets) for rows in zip(*caches, strict=True)]


def _joined(rows: Sequence[Layer], offsets: mx.array) -> Any:
    first = rows[0]
    if type(first) is CacheList:
        parts = zip(*(row.caches for row in rows), strict=True)
        return tuple(_joined(part, offsets) for part in parts)
    if kinds.is_full_attention(first) or isinstance(first, WindowKVCache):
        return AttentionRows(rows, offsets)
    if type(first) is ArraysCache:
        return StateRows(rows)
    raise NotImplementedError(f"layers of the class {type(first).__name__} cannot be shared")


class AttentionRows:
    """Stands in for a layer with keys and values."""

    def __init__(self, rows: Sequence[Layer], offsets: mx.array) -> None:
        self._rows = rows
        # The position of each row's next token.
        self.offset = offsets

    def make_mask(
        self, N: int, window_size: int | None = None, return_array: bool = False
    ) -> Masks | None:
        masks = [
            row.make_mask(N, window_size=window_size, return_array=return_array)
            for row in self._rows
        ]
        return None if all(mask is None for mask in masks) else masks

    def update_and_fetch(
        self, keys: mx.array, values: mx.array
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Appends a token to each row; returns the keys and the values of each."""
        count = len(self._rows)
        pairs = zip(self._rows, mx.split(keys, count), mx.split(values, count), strict=True)
        fetched = [row.update_and_fetch(k, v) for row, k, v in pairs]
        self.offset = self.offset + keys.shape[2]
        all_keys, all_values = zip(*fetched, strict=True)
        return all_keys, all_values

    def attend(
        self,
        queries: mx.array,
        keys: Sequence[Any],
        values: Sequence[Any],
        mask: Masks | None,
        **options: Any,
    ) -> mx.array:
        """Attention of each row to its own keys (`adapter.SharedAttention`)."""
        masks = self._each(mask)
        parts = zip(mx.split(queries, len(masks)), keys, values, self._rows, masks, strict=True)
        return mx.concatenate([attention(q, k, v, row, m, **options) for q, k, v, row, m in parts])

    def row_by_row(
        self, module: Callable[[mx.array, Any, Layer], mx.array], x: mx.array, mask: Masks | None
    ) -> mx.array:
        """What an attention module computes of each row by itself."""
        masks = self._each(mask)
        parts = zip(mx.split(x, len(masks)), masks, self._rows, strict=True)
        return mx.concatenate([module(part, m, row) for part, m, row in parts])

    def _each(self, mask: Masks | None) -> Masks:
        return mask if mask is not None else [None] * len(self._rows)


class StateRows:
    """Stands in for a layer with a state."""

    # As in a layer without padding.
    lengths = left_padding = None

    def __init__(self, rows: Sequence[Layer]) -> None:
        self._rows = rows

    def __getitem__(self, index: int) -> mx.array | None:
        states = [row[index] for row in self._rows]
        return None if states[0] is None else mx.concatenate(states)

    def __setitem__(self, index: int, state: mx.array) -> None:
        for number, row in enumerate(self._rows):
            # A gather, since a slice would keep the states of all rows in memory.
            row[index] = state[mx.array([number])]

    def make_mask(self, N: int) -> None:
        """No token is padding."""

    def advance(self, N: int) -> None:
        """Nothing counts the tokens of a layer without padding."""
