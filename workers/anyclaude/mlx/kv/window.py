"""A sliding-window KV cache whose results do not depend on how the tokens arrived.

mlx-lm's RotatingKVCache overwrites its buffer in a circle, so a sum over the window runs in another
order after decoding than after prefilling, and a cached prompt differs from a fresh one in the last
bits. This one keeps the window in temporal order and masks by position: leading masked keys add
exact zeros. It keeps `slack` tokens more than the window, so it can also be cut back by that many
tokens without a checkpoint.

Invariants: the buffer covers positions [base, offset); base is 0 or a multiple of ALIGNMENT;
a cut to n is possible while every key that position n attends to is still there.
"""

from collections.abc import Sequence
from typing import Any, Final

import mlx.core as mx

# Reductions run in vector lanes from the buffer's start; a start on a multiple of every lane width
# keeps the keys of a window in the same lanes.
ALIGNMENT: Final = 64
DEFAULT_SLACK_TOKENS: Final = 512
GROWTH_TOKENS: Final = 256


class WindowKVCache:
    """Drop-in for RotatingKVCache with keep=0.

    Keys and values have shape (batch, kv_heads, tokens, head_dim).
    """

    def __init__(self, window: int, slack: int = DEFAULT_SLACK_TOKENS) -> None:
        self.window = window
        self.slack = slack
        self.base = 0
        self.offset = 0
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    # mlx-lm's models and masks read this name.
    @property
    def max_size(self) -> int:
        return self.window

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        count = keys.shape[2]
        base, grows = self._plan(count)
        if self.keys is None or self.values is None:
            self.keys, self.values = _spare_for(keys, count), _spare_for(values, count)
        elif grows:
            kept = slice(base - self.base, self.offset - self.base)
            self.keys = mx.concatenate([self.keys[..., kept, :], _spare_for(keys, count)], axis=2)
            self.values = mx.concatenate(
                [self.values[..., kept, :], _spare_for(values, count)], axis=2
            )
        self.base = base
        start, self.offset = self.offset - base, self.offset + count
        end = start + count
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        return self.keys[..., :end, :], self.values[..., :end, :]

    def make_mask(
        self, N: int, window_size: int | None = None, return_array: bool = False
    ) -> mx.array | str | None:
        """The mask of shape (N, kept + N) for the N positions about to be appended."""
        del return_array
        base, _ = self._plan(N)
        end = self.offset + N
        window = min(window_size or self.window, self.window)
        if base == 0 and end <= window:
            return "causal" if N > 1 else None
        keys = mx.arange(base, end)[None]
        queries = mx.arange(self.offset, end)[:, None]
        return (keys <= queries) & (keys > queries - window)

    def earliest_cut(self) -> int:
        """The lowest length this cache can be cut back to."""
        return 0 if self.base == 0 else self.base + self.window - 1

    def trim(self, n: int) -> int:
        """Drops the last `n` tokens.

        Raises:
            ValueError: keys that the new end attends to are gone.
        """
        end = self.offset - n
        if end < self.earliest_cut():
            raise ValueError(f"cannot cut to {end}: positions before {self.base} are gone")
        self.offset = end
        return n

    def is_trimmable(self) -> bool:
        return self.base == 0

    def size(self) -> int:
        return self.offset - self.base

    def empty(self) -> bool:
        return self.keys is None

    @property
    def state(self) -> tuple[mx.array | None, mx.array | None, int, int, int, int]:
        return self.keys, self.values, self.offset, self.base, self.window, self.slack

    @classmethod
    def from_state(cls, state: Sequence[Any]) -> "WindowKVCache":
        keys, values, offset, base, window, slack = state
        cache = cls(window, slack)
        cache.keys, cache.values, cache.offset, cache.base = keys, values, offset, base
        return cache

    @property
    def nbytes(self) -> int:
        if self.keys is None or self.values is None:
            return 0
        return self.keys.nbytes + self.values.nbytes

    def compacted(self, end: int) -> "WindowKVCache":
        """A copy of the first `end` tokens with only the buffers that continuing there needs."""
        assert self.earliest_cut() <= end <= self.offset
        copy = WindowKVCache(self.window, self.slack)
        copy.offset = end
        copy.base = max(self.base, self._aligned_base(end))
        if self.keys is not None and self.values is not None:
            kept = slice(copy.base - self.base, end - self.base)
            copy.keys = mx.contiguous(self.keys[..., kept, :])
            copy.values = mx.contiguous(self.values[..., kept, :])
        return copy

    def _plan(self, count: int) -> tuple[int, bool]:
        """Where the buffer begins once `count` more tokens are in, and whether it is made anew."""
        capacity = 0 if self.keys is None else self.keys.shape[2]
        if self.offset - self.base + count <= capacity:
            return self.base, False
        if self.offset - self.base <= self.window + self.slack:
            return self.base, True
        return max(self.base, self._aligned_base(self.offset)), True

    def _aligned_base(self, end: int) -> int:
        return max(0, (end - self.window + 1) // ALIGNMENT * ALIGNMENT)


def _spare_for(like: mx.array, count: int) -> mx.array:
    batch, heads, _, dim = like.shape
    steps = (count + GROWTH_TOKENS - 1) // GROWTH_TOKENS
    return mx.zeros((batch, heads, steps * GROWTH_TOKENS, dim), like.dtype)
