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

import numpy as np
import numpy.typing as npt
import structlog
from llguidance import LLMatcher

import mlx.core as mx

Sampler = Callable[[mx.array], mx.array]
# One bit per token, 32 in each number, the lowest first.
Mask = npt.NDArray[np.int32]

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
    mask: Mask


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
        ends: tokens that end an answer; with some banned, none of these comes first.
    """

    start: LLMatcher | None
    start_thinking: int | None
    in_thinking: bool
    free: Sequence[Beginning]
    thinking: Sequence[Beginning]
    single: bool
    banned: Sequence[int] = ()
    ends: Sequence[int] = ()


def mask_of(matcher: LLMatcher, words: int) -> Mask:
    """Which tokens may come next."""
    mask = np.zeros(words, np.int32)
    matcher.unsafe_compute_mask_ptr(mask.ctypes.data, words * _BYTES_PER_WORD)
    return mask


def tokens_in(mask: Mask) -> npt.NDArray[np.intp]:
    """The ids of the tokens in a mask."""
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def expanded(mask: Mask, vocabulary: int) -> mx.array:
    """A mask as one truth value per token; False for those that have no bit."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little", count=vocabulary)
    return mx.array(bits.view(np.bool_))


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
        self._needs_probabilities = True

    @property
    def holds(self) -> bool:
        """Whether the tokens taken so far end inside a grammar."""
        return self._phase is Phase.HELD

    def sampler(self, inner: Sampler, *, needs_probabilities: bool = True) -> Sampler:
        """`inner`, choosing only among the tokens that may come.

        Args:
            needs_probabilities: `inner` compares with fixed probabilities, as top-p does, so what
                it gets must add up to one.
        """
        self._needs_probabilities = needs_probabilities

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
            return self._choose(inner, logprobs)
        if self._last is not None and self._taken < self._sampled:
            for beginning in self._beginnings():
                held = self._masked(logprobs, beginning.mask)
                logprobs = mx.where(self._last == beginning.token_ids[-1], held, logprobs)
        if self._plan.banned:
            logprobs[..., mx.array(list(self._plan.banned))] = -mx.inf
            if self._sampled == 0:
                # A model that may not call has words instead, not silence.
                logprobs[..., mx.array(list(self._plan.ends))] = -mx.inf
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

    def mask(self) -> Mask:
        """The tokens that may come next, inside a grammar."""
        assert self._matcher is not None
        mask = mask_of(self._matcher, self._words)
        if self._sampled == 0 and (think := self._plan.start_thinking) is not None:
            mask.view(np.uint8)[think // 8] |= 1 << think % 8
        return mask

    def _choose(self, inner: Sampler, logprobs: mx.array) -> mx.array:
        mask = self.mask()
        self._only = only_token(mask)
        if self._only is not None:
            return mx.array([self._only])
        return inner(self._masked(logprobs, mask))

    def _masked(self, logprobs: mx.array, mask: Mask) -> mx.array:
        held = mx.where(expanded(mask, logprobs.shape[-1]), logprobs, -mx.inf)
        if self._needs_probabilities:
            held = held - mx.logsumexp(held, axis=-1, keepdims=True)
        return held

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


def only_token(mask: Mask) -> int | None:
    """The one token in a mask, if it is one."""
    words = np.flatnonzero(mask)
    if len(words) != 1:
        return None
    bits = int(mask[words[0]]) & 0xFFFFFFFF
    if bits & (bits - 1):
        return None
    return int(words[0]) * _BITS_PER_WORD + bits.bit_length() - 1
