"""Checks caches: recomputes kept segments in a fresh run, and compares.

A verification takes branches of the tree in random order and runs each one's tokens through a new
cache, a chunk a step, so that requests get their turns in between. Only full-attention KV is
compared: it is what segments are made of, and states of other layers show in the layers above them.

With the BLAS of MLX's wheel on the CPU every bit must be equal, and a segment that differs is
removed. Elsewhere the last bits depend on how many tokens a step computes. There the same
tokens run through a second cache in other chunks. The difference between the two fresh runs is the
noise floor. A segment that is further off is reported, and stays.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, Layer, prefill
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.protocols import Loss
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import Node, SegmentArrays
from anyclaude.mlx.tokens import TokenArray

log = structlog.get_logger(__name__)

# Tokens a step of the second run: few enough for the kernels that decoding uses.
_SECOND_CHUNK_TOKENS: Final = 8
# The median is taken over so many tokens, so that a damaged part of a long segment shows and a few
# tokens that went to another expert do not.
_RUN_TOKENS: Final = 32
# How far off a segment may be, in noise floors and as a relative error. Harmless noise of 0.1 %
# moves 4-bit KV by 2 %; KV of other tokens is off by about 100 %.
_NOISE_FLOORS: Final = 4.0
_LEAST_TOLERANCE: Final = 0.05
_LARGEST_TOLERANCE: Final = 0.5
_NO_RELATION: Final = 1e9


@dataclass
class Findings:
    """What a verification has seen so far.

    Attributes:
        exact: whether every bit had to be equal.
        wrong: names of segments that were removed.
        differing: names of segments that are further off than noise explains; they stay.
        error, noise_floor: the largest relative errors per token: of kept segments against a fresh
            run, and of one fresh run against another. Both are 0 where every bit had to be equal.
    """

    exact: bool
    segments: int = 0
    computed_tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    error: float = 0.0
    noise_floor: float = 0.0


class Verification:
    """One run over the caches; call every `step` on the MLX thread."""

    def __init__(
        self,
        model: LanguageModel,
        store: KVStore,
        *,
        chunk_tokens: int,
        max_tokens: int,
        exact: bool,
        rng: random.Random | None = None,
    ) -> None:
        """Computes at most `max_tokens`, or all with 0; `exact`: every bit must be equal."""
        self.findings = Findings(exact)
        self._model = model
        self._store = store
        self._chunk_tokens = chunk_tokens
        self._max_tokens = max_tokens
        self._seen: set[Node] = set()
        self._steps = self._run(rng or random.Random())  # noqa: S311 - chooses a sample

    def step(self) -> bool:
        """Computes a chunk; False once all is done."""
        return next(self._steps, None) is not None

    def _run(self, rng: random.Random) -> Iterator[bool]:
        ends = [node for node in self._store.tree.nodes() if not node.children]
        rng.shuffle(ends)
        runs = 1 if self.findings.exact else 2
        for end in ends:
            spare = self._max_tokens - self.findings.computed_tokens
            if self._max_tokens and runs * end.end > spare:
                continue
            yield from self._branch(end.path())

    def _branch(self, path: list[Node]) -> Iterator[bool]:
        fresh = kinds.new_layers(self._model, self._store.kv_bits)
        second = None if self.findings.exact else kinds.new_layers(self._model, self._store.kv_bits)
        for node in path:
            tokens = node.tokens
            yield from self._compute(fresh, tokens, self._chunk_tokens)
            if second is not None:
                # Also for a short segment, so few that the chunks are not those of the first run.
                half = -(-len(tokens) // 2)
                yield from self._compute(second, tokens, min(_SECOND_CHUNK_TOKENS, half))
            if node not in self._store.tree or node.end - node.start != len(tokens):
                # It was evicted or split meanwhile.
                return
            if node not in self._seen and not self._is_sound(node, fresh, second):
                return

    def _compute(
        self, layers: list[Layer], tokens: TokenArray, chunk_tokens: int
    ) -> Iterator[bool]:
        for at in range(0, len(tokens), chunk_tokens):
            chunk = tokens[at : at + chunk_tokens]
            prefill(self._model, layers, chunk)
            self.findings.computed_tokens += len(chunk)
            yield True

    def _is_sound(self, node: Node, fresh: list[Layer], second: list[Layer] | None) -> bool:
        """Compares one segment; False if it left the tree, with all behind it."""
        self._seen.add(node)
        kept = node.content or self._store.storage.read(node)
        if kept is None:
            self._store.forget(node, Loss.CORRUPT_RECORD)
            self.findings.wrong.append(node.name)
            return False
        self.findings.segments += 1
        leaves, expected = _segment(fresh, node)
        if second is not None:
            self._measure(node, leaves, kept.arrays, expected, _segment(second, node)[1])
            return True
        if _equal(kept.arrays, expected):
            return True
        self.findings.wrong.append(node.name)
        log.error("a kept segment is not what a fresh run gives", segment=node.name)
        self._store.storage.quarantine(node, "a fresh run gives other numbers")
        self._store.forget(node, Loss.CORRUPT_RECORD)
        return False

    def _measure(
        self,
        node: Node,
        leaves: list[Layer],
        kept: SegmentArrays,
        expected: SegmentArrays,
        again: SegmentArrays,
    ) -> None:
        """Records how far a segment is off, and how far two fresh runs are apart."""
        differs = False
        for leaf, *arrays in zip(leaves, kept, expected, again, strict=True):
            for ours, theirs, other in zip(
                *(kinds.as_floats(leaf, a) for a in arrays), strict=True
            ):
                error, floor = relative_error(ours, theirs), relative_error(other, theirs)
                tolerance = min(max(_LEAST_TOLERANCE, _NOISE_FLOORS * floor), _LARGEST_TOLERANCE)
                differs |= error > tolerance
                self.findings.error = max(self.findings.error, error)
                self.findings.noise_floor = max(self.findings.noise_floor, floor)
        if differs:
            self.findings.differing.append(node.name)
            log.warning("a kept segment is further off than noise explains", segment=node.name)


def relative_error(ours: mx.array, theirs: mx.array) -> float:
    """How far apart two arrays of shape `(1, heads, tokens, size)` are.

    A token's error is the length of its difference over the length of its values in `theirs`. The
    result is the largest median of 32 tokens in a row. Numbers that are not finite and arrays of
    different shapes give 1e9.
    """
    if ours.shape != theirs.shape:
        return _NO_RELATION
    errors = np.array(_length(ours - theirs) / mx.maximum(_length(theirs), 1e-9))
    errors = np.nan_to_num(errors, nan=_NO_RELATION, posinf=_NO_RELATION)
    runs = range(0, len(errors), _RUN_TOKENS)
    return float(np.max([np.median(errors[at : at + _RUN_TOKENS]) for at in runs]))


def _length(values: mx.array) -> mx.array:
    """The Euclidean length of each token's values."""
    return mx.sqrt(mx.square(values).sum(axis=(0, 1, 3)))


def _segment(layers: list[Layer], node: Node) -> tuple[list[Layer], SegmentArrays]:
    """The full-attention leaves, and their arrays for the tokens of a segment."""
    leaves = [leaf for leaf in kinds.leaves(layers) if kinds.is_full_attention(leaf)]
    return leaves, [kinds.sliced(leaf, node.start, node.end) for leaf in leaves]


def _equal(kept: SegmentArrays, expected: SegmentArrays) -> bool:
    return all(
        _same(ours, theirs)
        for pair in zip(kept, expected, strict=True)
        for ours, theirs in zip(*pair, strict=True)
    )


def _same(a: mx.array, b: mx.array) -> bool:
    return a.shape == b.shape and bool(mx.array_equal(a, b, equal_nan=True).item())
