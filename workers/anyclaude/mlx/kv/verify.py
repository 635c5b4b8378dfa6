"""Checks caches: recomputes kept segments in a fresh run, and compares.

A verification takes branches of the tree in random order and runs each one's tokens through a new
cache, a chunk a step, so that requests get their turns in between. On the CPU every bit must be
equal. Elsewhere the order of a sum may depend on how many tokens a step took, so a small difference
is allowed there. Only full-attention KV is compared: it is what segments are made of, and states of
other layers show in the layers above them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, prefill
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.protocols import Loss
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import Node, SegmentArrays

log = structlog.get_logger(__name__)

# The allowed difference, relative to the largest number in a layer's KV.
TOLERANCE = 0.02


@dataclass
class Findings:
    """What a verification has seen so far."""

    segments: int = 0
    computed_tokens: int = 0
    wrong: list[str] = field(default_factory=list)


class Verification:
    """One run over the caches; call every `step` on the MLX thread."""

    def __init__(
        self,
        model: LanguageModel,
        store: KVStore,
        *,
        chunk_tokens: int,
        max_tokens: int,
        rng: random.Random | None = None,
    ) -> None:
        """
        Args:
            max_tokens: computed at most; 0 for all.
        """
        self.findings = Findings()
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
        for end in ends:
            spare = self._max_tokens - self.findings.computed_tokens
            if self._max_tokens and end.end > spare:
                continue
            yield from self._branch(end.path())

    def _branch(self, path: list[Node]) -> Iterator[bool]:
        layers = kinds.new_layers(self._model, self._store.kv_bits)
        for node in path:
            tokens = node.tokens
            for at in range(0, len(tokens), self._chunk_tokens):
                chunk = tokens[at : at + self._chunk_tokens]
                prefill(self._model, layers, chunk)
                self.findings.computed_tokens += len(chunk)
                yield True
            if node not in self._store.tree or node.end - node.start != len(tokens):
                # It was evicted or split meanwhile.
                return
            if node not in self._seen and not self._compare(node, layers):
                return

    def _compare(self, node: Node, layers: list[object]) -> bool:
        """Compares one segment; removes a wrong one and all that builds on it."""
        self._seen.add(node)
        kept = node.content or self._store.storage.read(node)
        if kept is None:
            self._store.forget(node, Loss.CORRUPT_RECORD)
            self.findings.wrong.append(node.name)
            return False
        self.findings.segments += 1
        fresh = [leaf for leaf in kinds.leaves(layers) if kinds.is_full_attention(leaf)]
        expected = [kinds.sliced(leaf, node.start, node.end) for leaf in fresh]
        if _equal(kept.arrays, expected):
            return True
        self.findings.wrong.append(node.name)
        log.error("a kept segment is not what a fresh run gives", segment=node.name)
        self._store.storage.quarantine(node, "a fresh run gives other numbers")
        self._store.forget(node, Loss.CORRUPT_RECORD)
        return False


def _equal(kept: SegmentArrays, expected: SegmentArrays) -> bool:
    exact = mx.default_device() == mx.Device(mx.cpu)
    pairs = [
        pair
        for ours, theirs in zip(kept, expected, strict=True)
        for pair in zip(ours, theirs, strict=True)
    ]
    return all(_same(a, b) if exact else _close(a, b) for a, b in pairs)


def _same(a: mx.array, b: mx.array) -> bool:
    return a.shape == b.shape and bool(mx.array_equal(a, b, equal_nan=True).item())


def _close(a: mx.array, b: mx.array) -> bool:
    if a.shape != b.shape:
        return False
    bound = TOLERANCE * mx.abs(b).max()
    return bool((mx.abs(a - b).max() <= bound).item())
