"""Passes of the model that several answers share: the next token of each, in one pass.

A pass reads all weights once, however many answers it computes. So a pass for eight answers often
costs little more than one for a single answer, and each still has its own cache, sampler and end.

Two questions decide how many answers share a pass, and both are asked of the model itself:
  - Does a pass of so many rows give the bits of single passes? A probe computes both once, with
    random prompts. What depends on the number of rows (the kernels of projections, experts and
    head) depends neither on the prompts nor on their lengths, since each row attends alone. A size
    with other bits is used only if the settings allow it.
  - Does it pay? `PassCosts` measures passes of each size and single ones.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, prefill, shared_attention
from anyclaude.mlx.engine.decoding import Decoding
from anyclaude.mlx.engine.drafts import PassCosts
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.rows import side_by_side

log = structlog.get_logger(__name__)

# A shared pass must be at least so many times as fast as single ones.
_MARGIN: Final = 1.05
# The rows of a probe have prompts of different lengths, from this one on, of so many tokens.
_PROBE_TOKENS: Final = 3
_PROBE_VOCABULARY: Final = 16


@dataclass(frozen=True)
class BatchStatus:
    """What is known of shared passes.

    Attributes:
        passes: how many ran.
        tokens: how many tokens they gave.
        exact_rows: numbers of rows that gave the bits of single passes.
        inexact_rows: numbers of rows that did not.
        largest_difference: in the logits of the latter, relative to the largest logit.
        unsupported: why the model cannot compute several answers at once; empty if it can.
    """

    passes: int = 0
    tokens: int = 0
    exact_rows: tuple[int, ...] = ()
    inexact_rows: tuple[int, ...] = ()
    largest_difference: float = 0.0
    unsupported: str = ""


class Batch:
    """Runs shared passes of one model. Used on the MLX thread only."""

    def __init__(
        self,
        model: LanguageModel,
        kv_bits: int,
        *,
        max_rows: int,
        allow_inexact: bool,
        clock: Callable[[], float],
        costs: PassCosts | None = None,
    ) -> None:
        """
        Args:
            allow_inexact: whether passes whose last bits differ may be shared.
            clock: seconds that a pass costs.
        """
        self._model = model
        self._kv_bits = kv_bits
        self._max_rows = max_rows
        self._allow_inexact = allow_inexact
        self._clock = clock
        self._costs = costs or PassCosts()
        self._differences: dict[int, float] = {}
        self._unsupported = ""
        self._passes = self._tokens = 0

    @property
    def status(self) -> BatchStatus:
        differences = sorted(self._differences.items())
        return BatchStatus(
            self._passes,
            self._tokens,
            tuple(rows for rows, difference in differences if not difference),
            tuple(rows for rows, difference in differences if difference),
            max(self._differences.values(), default=0.0),
            self._unsupported,
        )

    def token_cost(self, answers: int) -> float:
        """What a token of one of so many answers costs, as a multiple of a pass for one answer."""
        rows = self.rows(answers)
        return self._costs.of(rows) / rows

    def rows(self, answers: int) -> int:
        """How many of so many answers should share the next pass; 1 if each should run alone."""
        if not self._costs.knows(1):
            return 1
        most = min(answers, self._max_rows)
        gains = {rows: rows / self._costs.of(rows) for rows in range(2, most + 1)}
        for rows in sorted(gains, key=lambda rows: (gains[rows], rows), reverse=True):
            if gains[rows] >= _MARGIN and self._may_share(rows):
                return rows
        return 1

    def shared(self, answers: Sequence[Decoding]) -> Iterator[Sequence[Decoding]]:
        """Runs shared passes; yields the answers of each, which now have logits.

        Each must use them before the next group is taken, which is when the pass is measured.
        Answers that are better computed alone are left out.
        """
        left = list(answers)
        while (count := self.rows(len(left))) > 1:
            rows, left = left[:count], left[count:]
            with self._measured(count):
                logits = computed_together(
                    self._model,
                    mx.concatenate([row.next_token for row in rows]),
                    [row.live for row in rows],
                )
                for row, its in zip(rows, mx.split(logits, count), strict=True):
                    row.receive(its)
                yield rows
            self._passes += 1
            self._tokens += count

    def add_single(self, seconds: float) -> None:
        """Notes what a token cost in passes of its own."""
        self._costs.add(1, seconds)

    @contextmanager
    def _measured(self, rows: int) -> Iterator[None]:
        began = self._clock()
        yield
        self._costs.add(rows, self._clock() - began)

    def _may_share(self, rows: int) -> bool:
        if not self._differences and not self._unsupported:
            self._probe()
        difference = self._differences.get(rows)
        return difference is not None and (self._allow_inexact or not difference)

    def _probe(self) -> None:
        try:
            self._differences = probed_differences(self._model, self._kv_bits, self._max_rows)
        except Exception as error:
            # Whatever a model's code does with what it takes for one cache.
            self._unsupported = f"{type(error).__name__}: {error}"
            log.warning("answers cannot share passes of this model", exc_info=True)
            return
        log.info("shared passes probed", differences=self._differences)


def computed_together(
    model: LanguageModel, token_ids: mx.array, lives: Sequence[LiveCache]
) -> mx.array:
    """The logits behind one more token of each cache, of shape (caches, 1, vocabulary).

    The layers of the caches then hold the token; `tokens` of the caches does not name it yet.
    """
    offsets = mx.array([len(live) for live in lives])
    with shared_attention(model):
        layers = side_by_side([live.layers for live in lives], offsets)
        return model(token_ids[:, None], cache=layers)


def probed_differences(model: LanguageModel, kv_bits: int, most: int) -> dict[int, float]:
    """How far passes of two to `most` rows are from single passes; 0 where all bits are equal.

    The largest difference of two logits, relative to the largest logit.
    """
    lives, tokens = [], [number % _PROBE_VOCABULARY for number in range(most)]
    rng = random.Random(most)  # noqa: S311 - makes prompts
    for number in range(most):
        live = LiveCache.empty(model, kv_bits=kv_bits, max_checkpoints=1)
        prompt = [rng.randrange(_PROBE_VOCABULARY) for _ in range(_PROBE_TOKENS + number)]
        prefill(model, live.layers, prompt)
        live.tokens.extend(prompt)
        lives.append(live)
    singles = mx.concatenate(
        [
            model(mx.array([[token]]), cache=live.fork(len(live), 1).layers)
            for token, live in zip(tokens, lives, strict=True)
        ]
    )
    differences = {}
    for rows in range(2, most + 1):
        forks = [live.fork(len(live), 1) for live in lives[:rows]]
        shared = computed_together(model, mx.array(tokens[:rows]), forks)
        differences[rows] = _difference(singles[:rows], shared)
    return differences


def _difference(one: mx.array, other: mx.array) -> float:
    one, other = (logits.astype(mx.float32) for logits in (one, other))
    value: Any = (mx.abs(one - other).max() / mx.abs(one).max()).item()
    return value if math.isfinite(value) else math.inf
