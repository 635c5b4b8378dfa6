"""Masks each step's probabilities, so that only tokens which the grammar allows are sampled.

Generation runs one step ahead: when a step's token is sampled, the token before it may still be
computing on the device, and reading it means waiting for the device. Inside a grammar that wait is
necessary, since the mask depends on the token, so the next forward pass is submitted first: the
device computes it while the token is read and the mask is made. Outside it is avoided: the mask
after each token that can begin a grammar is computed beforehand, and the device chooses whether to
apply it.

Invariants:
- Every token is processed once and in order, whether it was read here or came by `observe`. Drafts
  are never processed, only tokens that were sampled.
- While a grammar is active, no token that it forbids is sampled.
- llguidance does not raise when it reaches a limit. So its error is asked for after every step, and
  the rest of the call is then decoded freely.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
from llguidance import LLMatcher

import mlx.core as mx
from anyclaude.mlx.adapter import Sampler, read_token
from anyclaude.mlx.decode.constraint.failures import reason_of
from anyclaude.mlx.lru import LRUCache

# One bit per token, 32 in each integer, the lowest bit first.
Mask = npt.NDArray[np.int32]

_log = structlog.get_logger(__name__)
_BYTES_PER_WORD: Final = 4
_BITS_PER_WORD: Final = 32
_LONGEST_TRIGGER: Final = 32
# One byte per token of the vocabulary each, and as many bits for the key.
_EXPANDED_MASKS: Final = 16


class Phase(Enum):
    # Every token is allowed, and a trigger activates a grammar.
    FREE = auto()
    # The same, inside thinking: the end of thinking is a trigger too.
    THINKING = auto()
    # A grammar is active.
    CONSTRAINED = auto()


@dataclass(frozen=True)
class Trigger:
    """Tokens that activate a grammar.

    Attributes:
        matcher: the state of the grammar after the tokens.
        mask: the tokens that it allows next.
    """

    token_ids: tuple[int, ...]
    matcher: LLMatcher
    mask: Mask


@dataclass(frozen=True)
class Plan:
    """The compiled grammars of one answer, and when they are active.

    Attributes:
        start: the grammar that is active from the first token; None to begin without one.
        start_thinking: the token that begins thinking, if it is allowed as the first token although
            it is not part of `start`.
        in_thinking: whether the prompt has already opened a thinking block.
        free, thinking: the triggers in these phases.
        single: whether one call ends the answer.
        free_when_complete: whether the answer goes on without the grammar as soon as the calls are
            complete, although the grammar allows more.
        header_end: the token that ends a message's header; if the grammar ends with it, the
            message's text is free.
        banned: tokens that are forbidden while no grammar is active.
        ends: the tokens that end an answer; if tokens are banned, none of these may come first.
        on_failure: is called if llguidance gives up on a grammar. Copies of a matcher share their
            lexer, so then none of them can be used again.
    """

    start: LLMatcher | None
    start_thinking: int | None
    in_thinking: bool
    free: Sequence[Trigger]
    thinking: Sequence[Trigger]
    single: bool
    free_when_complete: bool = False
    header_end: int | None = None
    banned: Sequence[int] = ()
    ends: Sequence[int] = ()
    on_failure: Callable[[], None] = lambda: None


def mask_of(matcher: LLMatcher, words: int) -> Mask:
    """The mask of the tokens that a grammar allows next; `words` is its length in integers."""
    mask = np.zeros(words, np.int32)
    matcher.unsafe_compute_mask_ptr(mask.ctypes.data, words * _BYTES_PER_WORD)
    return mask


def tokens_of(mask: Mask) -> list[int]:
    """The tokens in a mask."""
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def expanded(mask: Mask, vocabulary: int) -> mx.array:
    """A mask as one boolean per token; false for tokens beyond its last bit."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little", count=vocabulary)
    return mx.array(bits.view(np.bool_))


def mask_words(vocabulary: int) -> int:
    """The number of integers in a mask."""
    return -(-vocabulary // _BITS_PER_WORD)


class Constraint:
    """Applies the grammars of one answer. Used on the MLX thread only."""

    def __init__(self, plan: Plan, words: int) -> None:
        self._plan = plan
        self._words = words
        self._phase = Phase.THINKING if plan.in_thinking else Phase.FREE
        self._matcher: LLMatcher | None = None
        # The latest tokens outside a grammar, in which triggers are searched for.
        self._tail: deque[int] = deque(maxlen=_LONGEST_TRIGGER)
        if plan.start is not None and not plan.in_thinking:
            self._activate(plan.start)
        # Counts of tokens that were sampled, that were processed here, and that came by `observe`.
        self._sampled = self._processed = self._observed = 0
        self._last: mx.array | None = None
        # The token just sampled, if the mask left no choice.
        self._only: int | None = None
        self._needs_probabilities = True
        self._expanded: LRUCache[bytes, mx.array] = LRUCache(_EXPANDED_MASKS)

    @property
    def is_active(self) -> bool:
        """Whether the tokens processed so far end inside a grammar."""
        return self._phase is Phase.CONSTRAINED

    def sampler(self, inner: Sampler, *, needs_probabilities: bool = True) -> Sampler:
        """A sampler that gives only the allowed tokens to `inner`.

        Args:
            needs_probabilities: whether `inner` compares with fixed probabilities, as top-p does,
                so that the probabilities of the allowed tokens must add up to one.
        """
        self._needs_probabilities = needs_probabilities

        def sample(logprobs: mx.array) -> mx.array:
            self._last = self._sample(inner, logprobs)
            self._sampled += 1
            return self._last

        return sample

    def observe(self, token_id: int) -> None:
        """Processes the next token of the answer, unless it was read here already.

        A token that was not sampled here was sampled by an earlier process.
        """
        if self._observed == self._sampled:
            self._sampled += 1
        if self._observed == self._processed:
            self._process(token_id)
        self._observed += 1

    def advance(self) -> None:
        """Processes the token that was sampled last, which must be computed by now."""
        if self._processed < self._sampled:
            self._process(self._read_last())

    def forced(self) -> list[int]:
        """The tokens that the grammar forces behind the processed ones; none outside a grammar.

        The sampler may still choose others that spell the same text.
        """
        if self._matcher is None or self._has_failed():
            return []
        return list(self._matcher.compute_ff_tokens())

    def allowed(self, token_ids: Sequence[int]) -> int:
        """How many of these tokens, from the first on, may come behind the processed ones."""
        if self._matcher is None or self._has_failed():
            return len(token_ids)
        return int(self._matcher.validate_tokens(list(token_ids)))

    def _sample(self, inner: Sampler, logprobs: mx.array) -> mx.array:
        if self._processed < self._sampled and self._needs_last_token():
            # Nothing of the next pass depends on the mask, so the device need not wait for it.
            mx.async_eval(logprobs)  # type: ignore[no-untyped-call]
            self._process(self._read_last())
        self._only = None
        if self._matcher is not None:
            return self._choose(inner, logprobs)
        if self._last is not None and self._processed < self._sampled:
            for trigger in self._triggers():
                masked = self._masked(logprobs, trigger.mask)
                logprobs = mx.where(self._last == trigger.token_ids[-1], masked, logprobs)
        if self._plan.banned:
            logprobs[..., mx.array(list(self._plan.banned))] = -mx.inf
            if self._sampled == 0:
                # A model that must not call a tool has to answer in words, not with nothing.
                logprobs[..., mx.array(list(self._plan.ends))] = -mx.inf
        return inner(logprobs)

    def _triggers(self) -> Sequence[Trigger]:
        return self._plan.free if self._phase is Phase.FREE else self._plan.thinking

    def _needs_last_token(self) -> bool:
        """Whether the mask depends on more than whether the last token is a trigger."""
        return self._phase is Phase.CONSTRAINED or any(
            len(trigger.token_ids) > 1 for trigger in self._triggers()
        )

    def _read_last(self) -> int:
        assert self._last is not None
        if self._only is not None:
            return self._only
        return read_token(self._last)

    def mask(self) -> Mask:
        """The tokens that are allowed next, while a grammar is active."""
        assert self._matcher is not None
        mask = mask_of(self._matcher, self._words)
        if self._sampled == 0 and (think := self._plan.start_thinking) is not None:
            mask.view(np.uint8)[think // 8] |= 1 << think % 8
        return mask

    def _choose(self, inner: Sampler, logprobs: mx.array) -> mx.array:
        mask = self.mask()
        if self._has_failed() or not mask.any():
            self._lose()
            return inner(logprobs)
        self._only = only_token(mask)
        if self._only is not None:
            return mx.array([self._only])
        return inner(self._masked(logprobs, mask))

    def _masked(self, logprobs: mx.array, mask: Mask) -> mx.array:
        vocabulary = logprobs.shape[-1]
        # Within a string the same few masks come again and again.
        allowed = self._expanded.get_or_make(mask.tobytes(), lambda: expanded(mask, vocabulary))
        masked = mx.where(allowed, logprobs, -mx.inf)
        if self._needs_probabilities:
            masked = masked - mx.logsumexp(masked, axis=-1, keepdims=True)
        return masked

    def _process(self, token_id: int) -> None:
        self._processed += 1
        if self._phase is Phase.CONSTRAINED:
            self._advance(token_id)
            return
        self._tail.append(token_id)
        tail = tuple(self._tail)
        for trigger in self._triggers():
            if tail[-len(trigger.token_ids) :] == trigger.token_ids:
                self._activate(trigger.matcher)
                return

    def _activate(self, matcher: LLMatcher) -> None:
        self._matcher = matcher.deep_copy()
        self._phase = Phase.CONSTRAINED
        self._tail.clear()

    def _advance(self, token_id: int) -> None:
        assert self._matcher is not None
        if self._processed == 1 and token_id == self._plan.start_thinking:
            self._matcher, self._phase = None, Phase.THINKING
            return
        if not self._matcher.consume_token(token_id) or self._has_failed():
            self._lose()
        elif self._is_complete() and self._is_free_after(token_id):
            self._matcher, self._phase = None, Phase.FREE

    def _is_complete(self) -> bool:
        assert self._matcher is not None
        return self._matcher.is_stopped() or (
            self._plan.free_when_complete and self._matcher.is_accepting()
        )

    def _is_free_after(self, token_id: int) -> bool:
        """Whether the answer goes on without a grammar after one that ended with this token."""
        if self._plan.header_end is not None:
            return token_id == self._plan.header_end
        return self._plan.start is None and not self._plan.single

    def _has_failed(self) -> bool:
        return self._matcher is not None and bool(self._matcher.is_error())

    def _lose(self) -> None:
        """Goes on without the grammar, up to the start of the next call."""
        assert self._matcher is not None
        _log.warning("grammar_lost", reason=reason_of(self._matcher) or "no token fits")
        self._matcher, self._phase = None, Phase.FREE
        self._plan.on_failure()


def only_token(mask: Mask) -> int | None:
    """The only token in a mask; None if there are several or none."""
    words = np.flatnonzero(mask)
    if len(words) != 1:
        return None
    bits = int(mask[words[0]]) & 0xFFFFFFFF
    if bits & (bits - 1):
        return None
    return int(words[0]) * _BITS_PER_WORD + bits.bit_length() - 1
