"""The mutable cache of one conversation: token ids, one cache per layer, checkpoints.

Invariants: every layer holds exactly `tokens`; a checkpoint at p holds, for each leaf that cannot
be cut freely, its state after the first p tokens; checkpoints lie within the tokens.

`extract` copies segments out of a live cache, `assemble` makes a live cache of segments.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, Layer, evaluate
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.tree import Node, SegmentArrays, States
from anyclaude.mlx.tokens import TokenArray, TokenBuffer


class LiveCache:
    """KV of `tokens`, ready to be continued, cut back or forked."""

    def __init__(
        self,
        layers: list[Layer],
        tokens: TokenArray | None = None,
        checkpoints: dict[int, States] | None = None,
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
        """Whether some layer can be restored from a saved state only."""
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
        """Drops all but the first `n` tokens, in place; `n` comes from `reusable`."""
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

    def fork(self, n: int, spare_tokens: int) -> "LiveCache":
        """A cache of its own that holds the first `n` tokens; `n` comes from `reusable`.

        Copies the data once; this cache does not change.
        """
        saved = {} if self._can_cut_freely(n) else self.checkpoints[n]
        new = []
        for index, leaf in enumerate(kinds.leaves(self.layers)):
            if kinds.is_full_attention(leaf):
                new.append(kinds.forked(leaf, n, spare_tokens))
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

    def state(self) -> States:
        """Copies of the leaves that only a saved state restores, as they are now."""
        states = {
            index: kinds.copied(leaf, len(self))
            for index, leaf in enumerate(kinds.leaves(self.layers))
            if not kinds.is_full_attention(leaf)
        }
        mx.eval([leaf.state for leaf in states.values()])
        return states

    def save_point(self) -> "SavePoint":
        """The present state, to which tokens that are computed next can be rolled back."""
        states = {
            index: kinds.copied(leaf, len(self))
            for index, leaf in enumerate(kinds.leaves(self.layers))
            if not kinds.can_drop_latest(leaf)
        }
        return SavePoint(len(self), states)

    def roll_back(self, point: "SavePoint", surplus: int) -> TokenArray:
        """Makes the layers hold `tokens` again, after a pass that computed `surplus` more.

        Returns the tokens since `point` that must be computed again, which some layers require.
        """
        again = self.tokens.ids[point.length :] if point.states else self.tokens.ids[:0]
        leaves = kinds.leaves(self.layers)
        for index, leaf in enumerate(leaves):
            if index in point.states:
                leaves[index] = point.states[index]
            else:
                leaf.trim(surplus + len(again))
        self.layers = kinds.replace_leaves(self.layers, leaves)
        return again

    def reserve(self, tokens: int) -> None:
        """Announces how many tokens are about to come, so that buffers grow once."""
        for leaf in kinds.leaves(self.layers):
            kinds.reserve(leaf, tokens)

    def checkpoint(self, *, keep: Iterable[int] = ()) -> None:
        """Saves the present state; over the limit drops the oldest, but none in `keep`."""
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


@dataclass(frozen=True)
class SavePoint:
    """A length of a live cache, and the states there of the leaves that cannot be cut back."""

    length: int
    states: States


def extract(live: LiveCache, start: int, end: int) -> SegmentArrays:
    """Copies the KV of the tokens from `start` to `end` out of the full-attention layers."""
    arrays = [
        kinds.sliced(leaf, start, end)
        for leaf in kinds.leaves(live.layers)
        if kinds.is_full_attention(leaf)
    ]
    mx.eval(arrays)
    return arrays


def assemble(nodes: Sequence[Node], live: LiveCache, prompt: TokenArray, spare_tokens: int) -> None:
    """Fills an empty live cache with the tokens of `prompt`, from the segments that hold them.

    Copies once, all segments of a layer together. Layers that need a state get the one saved there.
    """
    n = len(prompt)
    used = [node for node in nodes if node.start < n]
    leaves, position = kinds.leaves(live.layers), 0
    for index, leaf in enumerate(leaves):
        if kinds.is_full_attention(leaf):
            pieces = [_piece(node, position, n) for node in used]
            leaves[index] = kinds.assembled(leaf, pieces, n, spare_tokens)
            position += 1
        else:
            leaves[index] = kinds.copied(used[-1].states[index], n)
    evaluate(leaves)
    live.layers = kinds.replace_leaves(live.layers, leaves)
    live.tokens.extend(prompt)
    # Saved states are never written to, so the live cache may hold them as well.
    live.checkpoints = {node.end: node.states for node in used if node.states and node.end <= n}


def _piece(node: Node, leaf_position: int, n: int) -> tuple[mx.array, ...]:
    assert node.arrays is not None
    arrays = node.arrays[leaf_position]
    if node.end <= n:
        return arrays
    return tuple(array[..., : n - node.start, :] for array in arrays)
