"""Holds an answer's tokens to a grammar, from the token on where that is called for.

Generation runs a step ahead: when a step's token is sampled, the one before it has been sampled
too but is known here only at the price of waiting for it. Inside a grammar that price is paid.
Elsewhere it is not: what may follow a token that begins a grammar is known beforehand, so whether
the last token was one is left to the device.

Invariants:
- tokens are taken in order and once, whether read here or told by `observe`;
- a token that a grammar does not allow is never sampled while one holds.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import structlog
from llguidance import LLMatcher

Sampler = Callable[[mx.array], mx.array]
Bits = npt.NDArray[np.uint8]

_log = structlog.get_logger(__name__)
_BYTES_PER_WORD: Final = 4
_BITS_PER_WORD: Final = 32
_LONGEST_BEGINNING: Final = 32


class Phase(Enum):
    # Any token may come; those that begin a grammar are watched for.
    FREE = auto()
    # Thinking may go on; its end, too, begins a grammar.
    THINKING = auto()
    HELD = auto()


@dataclass(frozen=True)
class Beginning:
    """Tokens that begin a grammar.

    Attributes:
        matcher: the grammar's state behind the tokens.
        mask: which tokens may come next, as `mask_of` gives it.
    """

    token_ids: tuple[int, ...]
    matcher: LLMatcher
    mask: Bits


@dataclass(frozen=True)
class Plan:
    """What an answer is held to, compiled.

    Attributes:
        start: the grammar in force from the first token; None to begin free.
        start_thinking: the first token that, though the grammar does not know it, may come and
            begins thinking; None when it must not.
        free, thinking: what begins a grammar in these phases.
        single: one call ends the answer.
        banned: tokens that must not come in the free phase.
    """

    start: LLMatcher | None
    start_thinking: int | None
    in_thinking: bool
    free: Sequence[Beginning]
    thinking: Sequence[Beginning]
    single: bool
    banned: Sequence[int] = ()


def mask_of(matcher: LLMatcher, words: int) -> Bits:
    """Which tokens may come next: one byte per token, 0 or 1."""
    bits = np.zeros(words, np.int32)
    matcher.unsafe_compute_mask_ptr(bits.ctypes.data, words * _BYTES_PER_WORD)
    return np.unpackbits(bits.view(np.uint8), bitorder="little")


def mask_words(vocabulary: int) -> int:
    return -(-vocabulary // _BITS_PER_WORD)


class Constraint:
    """One answer's; used on the MLX thread only."""

    def __init__(self, plan: Plan, words: int) -> None:
        self._plan = plan
        self._words = words
        self._phase = Phase.THINKING if plan.in_thinking else Phase.FREE
        self._matcher: LLMatcher | None = None
        # The last tokens outside grammars.
        self._tail: deque[int] = deque(maxlen=_LONGEST_BEGINNING)
        if plan.start is not None and not plan.in_thinking:
            self._hold(plan.start)
        # Tokens sampled, taken into account here, and told by `observe`.
        self._sampled = self._taken = self._observed = 0
        self._last: mx.array | None = None
        # The token just sampled, where there was no choice.
        self._only: int | None = None

    @property
    def holds(self) -> bool:
        """Whether the tokens taken so far end inside a grammar."""
        return self._phase is Phase.HELD

    def sampler(self, inner: Sampler) -> Sampler:
        """`inner`, choosing only among the tokens that may come."""

        def sample(logprobs: mx.array) -> mx.array:
            self._last = self._sample(inner, logprobs)
            self._sampled += 1
            return self._last

        return sample

    def observe(self, token_id: int) -> None:
        """Takes the next token of the answer, if it is not known here already."""
        if self._observed == self._taken:
            self._take(token_id)
        self._observed += 1

    def _sample(self, inner: Sampler, logprobs: mx.array) -> mx.array:
        if self._taken < self._sampled and self._must_know():
            self._take(self._read_last())
        self._only = None
        if self._matcher is not None:
            return self._choose(inner, logprobs, self._matcher)
        if self._last is not None and self._taken < self._sampled:
            for beginning in self._beginnings():
                held = _masked(logprobs, beginning.mask)
                logprobs = mx.where(self._last == beginning.token_ids[-1], held, logprobs)
        if self._plan.banned:
            logprobs[..., mx.array(list(self._plan.banned))] = -mx.inf
        return inner(logprobs)

    def _beginnings(self) -> Sequence[Beginning]:
        return self._plan.free if self._phase is Phase.FREE else self._plan.thinking

    def _must_know(self) -> bool:
        """Whether what may come now depends on more than which the last token is."""
        return self._phase is Phase.HELD or any(
            len(beginning.token_ids) > 1 for beginning in self._beginnings()
        )

    def _read_last(self) -> int:
        assert self._last is not None
        if self._only is not None:
            return self._only
        value: Any = self._last.item()
        return int(value)

    def _choose(self, inner: Sampler, logprobs: mx.array, matcher: LLMatcher) -> mx.array:
        mask = mask_of(matcher, self._words)
        if self._sampled == 0 and self._plan.start_thinking is not None:
            mask[self._plan.start_thinking] = 1
        allowed = np.flatnonzero(mask[: logprobs.shape[-1]])
        if len(allowed) == 1:
            self._only = int(allowed[0])
            return mx.array([self._only])
        return inner(_masked(logprobs, mask))

    def _take(self, token_id: int) -> None:
        self._taken += 1
        if self._phase is Phase.HELD:
            self._advance(token_id)
            return
        self._tail.append(token_id)
        tail = tuple(self._tail)
        for beginning in self._beginnings():
            if tail[-len(beginning.token_ids) :] == beginning.token_ids:
                self._hold(beginning.matcher)
                return

    def _hold(self, matcher: LLMatcher) -> None:
        self._matcher = matcher.deep_copy()
        self._phase = Phase.HELD
        self._tail.clear()

    def _advance(self, token_id: int) -> None:
        assert self._matcher is not None
        if self._taken == 1 and token_id == self._plan.start_thinking:
            self._matcher, self._phase = None, Phase.THINKING
            return
        if not self._matcher.consume_token(token_id):
            _log.error("grammar_lost", reason=self._matcher.get_error()[:200])
            self._matcher, self._phase = None, Phase.FREE
        elif self._matcher.is_stopped() and self._plan.start is None and not self._plan.single:
            self._matcher, self._phase = None, Phase.FREE


def _masked(logprobs: mx.array, mask: Bits) -> mx.array:
    """`logprobs` of the tokens in `mask` alone, which together are sure."""
    width = logprobs.shape[-1]
    if len(mask) < width:
        mask = np.pad(mask, (0, width - len(mask)))
    held = mx.where(mx.array(mask[:width]).astype(mx.bool_), logprobs, -mx.inf)
    return held - mx.logsumexp(held, axis=-1, keepdims=True)
