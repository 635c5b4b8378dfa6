"""Drafts: guesses of an answer's next tokens, and how many of them are worth a pass.

Two sources give drafts. A grammar forces tokens: keys, punctuation, the rest of an enum's value.
And the text repeats itself: code that is edited, a file's content in a tool's arguments. So the
last tokens are searched for in prompt and answer, and what followed their latest occurrence is
the draft (prompt lookup).

How many drafts a pass gets is decided by measurement. `Odds` counts, for each source, how often a
guess was right: also while nothing is drafted, since a guess costs microseconds and can be compared
with the token that came. `PassCosts` measures what a pass of several tokens costs. The number with
the most expected tokens per cost wins; if one token at a time wins, nothing is drafted until the
guesses get better.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import numpy as np

import mlx.core as mx
from anyclaude.mlx.tokens import TokenArray

# Only so many tokens at the end of the context are searched, which takes a tenth of a millisecond.
_SEARCHED_TOKENS: Final = 131_072
# The longest run of equal tokens that is told from a shorter one.
_LONGEST_MATCH: Final = 16
# From this length on, a match counts as a copy.
_LONG_MATCH: Final = 8
# How much older guesses count with each new one, and what is assumed before the first.
_MEMORY: Final = 0.9
_FIRST_ODDS: Final = 0.6
_FIRST_WEIGHT: Final = 1.0
# A draft must promise this much more than one token at a time.
_MARGIN: Final = 1.05
# A pass of twice as many tokens is assumed to cost at least so many times as much until it was
# measured.
_DOUBLED_COST: Final = 1.5
_SAMPLES: Final = 9
_LEAST_SAMPLES: Final = 2
# A cost is measured again if it is older than so many passes of one token.
_STALE_PASSES: Final = 2000


class Source(Enum):
    """Where a draft comes from; each has odds of its own."""

    FORCED = auto()
    SHORT_MATCH = auto()
    LONG_MATCH = auto()


class Guide(Protocol):
    """What a grammar says about the next tokens (`Constraint`)."""

    def advance(self) -> None:
        """Processes the token that was sampled last, which must be computed by now."""

    def forced(self) -> list[int]:
        """The tokens that must come next."""

    def allowed(self, token_ids: Sequence[int]) -> int:
        """How many of these tokens, from the first on, may come next."""


@dataclass(frozen=True)
class DraftLimits:
    """As in the settings."""

    most_tokens: int
    least_match: int


@dataclass(frozen=True)
class Match:
    """An earlier occurrence of the last tokens.

    Attributes:
        end: the position behind it.
        length: how many tokens are equal.
    """

    end: int
    length: int


def latest_match(token_ids: TokenArray, least: int) -> Match | None:
    """The longest earlier occurrence of the last tokens, the latest of equally long ones."""
    last = len(token_ids) - 1
    ends = np.flatnonzero(token_ids[:-1] == token_ids[-1])
    length = min(1, len(ends))
    for back in range(1, min(_LONGEST_MATCH, last)):
        ends_here = ends[ends >= back]
        longer = ends_here[token_ids[ends_here - back] == token_ids[last - back]]
        if not len(longer):
            break
        ends, length = longer, back + 1
    return Match(int(ends[-1]) + 1, length) if length >= max(1, least) else None


class Odds:
    """How often the guesses of each source were right lately."""

    def __init__(self) -> None:
        self._right = dict.fromkeys(Source, _FIRST_ODDS * _FIRST_WEIGHT)
        self._all = dict.fromkeys(Source, _FIRST_WEIGHT)

    def of(self, source: Source) -> float:
        return self._right[source] / self._all[source]

    def add(self, source: Source, *, right: bool) -> None:
        self._right[source] = self._right[source] * _MEMORY + right
        self._all[source] = self._all[source] * _MEMORY + 1

    def expected_tokens(self, source: Source, drafts: int) -> float:
        """The mean number of tokens that a pass with so many drafts gives."""
        odds = min(self.of(source), 0.999)
        return (1 - odds ** (drafts + 1)) / (1 - odds)


def pass_clock() -> Callable[[], float]:
    """Seconds that passes cost: on the CPU its time, which the load of other programs leaves."""
    return time.process_time if mx.default_device() == mx.cpu else time.monotonic


class PassCosts:
    """What passes of several tokens cost, as multiples of a pass of one. Shared by all requests.

    A size that was not measured is taken for the next power of two.
    """

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._singles = 0
        self._measured_at: dict[int, int] = {}

    def add(self, tokens: int, seconds: float) -> None:
        """Notes what a pass took."""
        self._singles += tokens == 1
        self._measured_at[tokens] = self._singles
        if tokens not in self._samples:
            # The first pass of a size compiles its kernels, so it is not counted.
            self._samples[tokens] = deque(maxlen=_SAMPLES)
            return
        samples = self._samples[tokens]
        samples.append(seconds)
        if len(samples) >= _LEAST_SAMPLES:
            self._medians[tokens] = statistics.median(samples)

    def of(self, tokens: int) -> float:
        if tokens == 1:
            return 1.0
        seconds, single = self._median(tokens), self._median(1)
        if seconds is not None and single:
            return seconds / single
        size = rounded_up(tokens)
        if size > tokens:
            return self.of(size)
        # No less than the step before it: a size is only tried where smaller ones are worth it.
        half = self.of(size // 2)
        grown = half / self.of(size // 4) if size > 2 else 1.0
        return half * max(_DOUBLED_COST, grown)

    def knows(self, tokens: int) -> bool:
        """Whether passes of so many tokens were measured."""
        return self._median(tokens) is not None

    def _median(self, tokens: int) -> float | None:
        is_stale = self._singles - self._measured_at.get(tokens, 0) > _STALE_PASSES
        return None if is_stale else self._medians.get(tokens)


class Drafter:
    """Drafts for one answer."""

    def __init__(self, limits: DraftLimits, costs: PassCosts, guide: Guide | None = None) -> None:
        self.costs = costs
        self._limits = limits
        self._guide = guide
        self._odds = Odds()
        # The guess of the next token, where it is from, and how many tokens were seen with it.
        self._guess: tuple[Source, int, int] | None = None
        # Whether the next pass may be worth drafts.
        self.is_promising = False

    def observe(self, token_ids: TokenArray) -> None:
        """Learns from the answer's latest token, and guesses the next one.

        Args:
            token_ids: prompt and answer, with that token.
        """
        if self._guess is not None:
            source, token, seen = self._guess
            if len(token_ids) == seen + 1:
                self._odds.add(source, right=token == token_ids[-1])
        source, drafts = self._guessed(token_ids[-_SEARCHED_TOKENS:], 2)
        self._guess = (source, drafts[0], len(token_ids)) if drafts else None
        self.is_promising = bool(drafts) and self._worthwhile(source, self._limits.most_tokens) > 0

    def drafts(
        self, token_ids: TokenArray, last: int, most: int, token_cost: float = 1.0
    ) -> list[int]:
        """The drafts that are worth a pass, at most `most`.

        Args:
            token_ids: prompt and answer in the cache.
            last: the token behind them.
            token_cost: what the next token costs without drafts, as a multiple of a pass of one.
        """
        most = min(most, self._limits.most_tokens)
        if self._guide is not None:
            self._guide.advance()
        context = np.append(token_ids[-_SEARCHED_TOKENS:], np.int32(last))
        source, drafts = self._guessed(context, most)
        return drafts[: self._worthwhile(source, len(drafts), token_cost)]

    def _guessed(self, context: TokenArray, most: int) -> tuple[Source, list[int]]:
        forced = self._guide.forced()[:most] if self._guide is not None else []
        if forced:
            return Source.FORCED, forced
        match = latest_match(context, self._limits.least_match)
        if match is None:
            return Source.SHORT_MATCH, []
        # A text that repeats itself goes on from its beginning.
        copied: list[int] = np.resize(context[match.end :], most).tolist()
        if self._guide is not None:
            copied = copied[: self._guide.allowed(copied)]
        return Source.LONG_MATCH if match.length >= _LONG_MATCH else Source.SHORT_MATCH, copied

    def _worthwhile(self, source: Source, available: int, token_cost: float = 1.0) -> int:
        """How many of the available drafts give the most tokens for their cost; 0 if none do."""
        best, best_number, size = _MARGIN, 0, 2
        while available and size <= rounded_up(available + 1):
            number = min(size - 1, available)
            gain = token_cost * self._odds.expected_tokens(source, number)
            gain /= self.costs.of(number + 1)
            if gain > best:
                best, best_number = gain, number
            size *= 2
        return best_number


def rounded_up(tokens: int) -> int:
    """The smallest power of two that is not below `tokens`."""
    return 1 << (tokens - 1).bit_length()
