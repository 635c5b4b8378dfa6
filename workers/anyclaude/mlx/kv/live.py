"""The mutable cache of one conversation: token ids, one cache per layer, checkpoints.

Invariants: every layer holds exactly `tokens`; a checkpoint at p holds, for each leaf that cannot
be cut freely, its state after the first p tokens; checkpoints lie within the tokens.
"""

from collections.abc import Iterable, Iterator

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, Layer, evaluate
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.tokens import TokenArray, TokenBuffer

# States by leaf index.
Checkpoint = dict[int, Layer]


class LiveCache:
    """KV of `tokens`, ready to be continued, cut back or forked."""

    def __init__(
        self,
        layers: list[Layer],
        tokens: TokenArray | None = None,
        checkpoints: dict[int, Checkpoint] | None = None,
        *,
        max_checkpoints: int,
    ) -> None:
        self.layers = layers
        self.tokens = TokenBuffer(tokens)
        self.checkpoints = checkpoints or {}
        self._max_checkpoints = max_checkpoints
        self._needs_checkpoints = not all(map(kinds.is_full_attention, kinds.leaves(layers)))

    @classmethod
    def empty(cls, model: LanguageModel, *, kv_bits: int, max_checkpoints: int) -> "LiveCache":
        return cls(kinds.new_layers(model, kv_bits), max_checkpoints=max_checkpoints)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        return sum(map(kinds.nbytes, self.leaves()))

    @property
    def needs_checkpoints(self) -> bool:
        """Whether some layer can only be brought back from a saved state."""
        return self._needs_checkpoints

    def leaves(self) -> Iterator[Layer]:
        """Every leaf that holds bytes; forks share checkpointed ones."""
        yield from kinds.leaves(self.layers)
        for point in self.checkpoints.values():
            yield from point.values()

    def reusable(self, common: int) -> int:
        """The greatest length at most `common` that `cut` and `fork` can reach exactly."""
        if self._can_cut_freely(common):
            return common
        return max((p for p in self.checkpoints if p <= common), default=0)

    def cut(self, n: int) -> None:
        """Forgets all but the first `n` tokens, in place; `n` comes from `reusable`."""
        length = len(self)
        if n == length:
            return
        saved = {} if self._can_cut_freely(n) else self.checkpoints[n]
        leaves = kinds.leaves(self.layers)
        for index, leaf in enumerate(leaves):
            if index in saved:
                leaves[index] = kinds.copied(saved[index], n)
            else:
                kinds.cut(leaf, n, length)
        self.layers = kinds.replace_leaves(self.layers, leaves)
        self.tokens.truncate(n)
        self.checkpoints = {p: state for p, state in self.checkpoints.items() if p <= n}

    def fork(self, n: int, room_tokens: int) -> "LiveCache":
        """A cache of its own that holds the first `n` tokens; `n` comes from `reusable`.

        One copy of what it holds; this cache is left as it was.
        """
        saved = {} if self._can_cut_freely(n) else self.checkpoints[n]
        new = []
        for index, leaf in enumerate(kinds.leaves(self.layers)):
            if kinds.is_full_attention(leaf):
                new.append(kinds.forked(leaf, n, room_tokens))
            else:
                new.append(kinds.copied(saved.get(index, leaf), n))
        evaluate(new)
        return LiveCache(
            kinds.replace_leaves(self.layers, new),
            self.tokens.ids[:n],
            # States are never written to, so both caches may hold them.
            {p: state for p, state in self.checkpoints.items() if p <= n},
            max_checkpoints=self._max_checkpoints,
        )

    def state(self) -> Checkpoint:
        """Copies of what only a saved state brings back, as they are now."""
        states = {
            index: kinds.copied(leaf, len(self))
            for index, leaf in enumerate(kinds.leaves(self.layers))
            if not kinds.is_full_attention(leaf)
        }
        mx.eval([leaf.state for leaf in states.values()])
        return states

    def reserve(self, tokens: int) -> None:
        """Announces how many tokens are about to come, so that buffers grow once."""
        for leaf in kinds.leaves(self.layers):
            kinds.reserve(leaf, tokens)

    def checkpoint(self, *, keep: Iterable[int] = ()) -> None:
        """Saves the present state; over the limit the oldest go, but never those in `keep`."""
        point = len(self)
        if not self._needs_checkpoints or point == 0 or point in self.checkpoints:
            return
        states = self.state()
        self.checkpoints[point] = states
        protected = {*keep, point}
        spare = sorted(p for p in self.checkpoints if p not in protected)
        for old in spare[: max(0, len(self.checkpoints) - self._max_checkpoints)]:
            del self.checkpoints[old]

    def _can_cut_freely(self, n: int) -> bool:
        length = len(self)
        return all(kinds.can_cut(leaf, n, length) for leaf in kinds.leaves(self.layers))
