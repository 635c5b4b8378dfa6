"""Passes of the model that several answers share: the next token of each, in one pass.

A pass reads all weights once, however many answers it computes. So a pass for eight answers often
costs little more than one for a single answer, and each still has its own cache, sampler and end.

Two questions decide how many answers share a pass, and both are asked of the model itself:
  - Does a pass of so many rows give the bits of single passes? A probe computes both once, with
    random prompts. What depends on the number of rows (the kernels of projections, experts and
    head) depends neither on the prompts nor on their lengths, since each row attends alone. A size
    with other bits is used only where the bits of a prompt, too, depend on how many of its tokens
    a pass computes: there equal bits cannot be promised anyway.
  - Does it pay? `PassCosts` measures passes of each size and single ones.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import structlog

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, SharedAttention, prefill
from anyclaude.mlx.engine.decoding import Decoding, log_probabilities
from anyclaude.mlx.engine.drafts import PassCosts
from anyclaude.mlx.kv.layers import new_layers
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.rows import side_by_side

log = structlog.get_logger(__name__)

# A shared pass must be at least so many times as fast as single ones.
_MARGIN: Final = 1.05
# The rows of a probe have prompts of different lengths, from this one on, of so many tokens.
_PROBE_TOKENS: Final = 3
_PROBE_VOCABULARY: Final = 16
# More than the kernels for a few tokens compute at a time, on any device.
_PROBE_CHUNK_TOKENS: Final = 32


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
        clock: Callable[[], float],
        costs: PassCosts | None = None,
    ) -> None:
        """
        Args:
            clock: seconds that a pass costs.
        """
        self._model = model
        self._shared_model = SharedModel(model)
        self._kv_bits = kv_bits
        self._max_rows = max_rows
        self._clock = clock
        self._costs = costs or PassCosts()
        self._differences: dict[int, float] = {}
        self._probes = self._probing()
        self._is_probed = max_rows == 1
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
        """Runs shared passes; yields the answers of each, whose next step needs no pass of its own.

        Each must do that step before the next group is taken, which is when the pass is measured.
        Answers that are better computed alone are left out.
        """
        left = list(answers)
        while (count := self.rows(len(left))) > 1:
            rows, left = left[:count], left[count:]
            with self._measured(count):
                self._run(rows)
                yield rows
            self._passes += 1
            self._tokens += count

    def add_single(self, seconds: float) -> None:
        """Notes what a token cost in passes of its own."""
        self._costs.add(1, seconds)

    def _run(self, rows: Sequence[Decoding]) -> None:
        """Submits one pass, with the tokens that the samplers of the rows choose from it."""
        token_ids = mx.concatenate([row.next_token for row in rows])
        logits = self._shared_model(token_ids, [row.live for row in rows])
        for row, its in zip(rows, mx.split(log_probabilities(logits), len(rows)), strict=True):
            row.receive(its)
        mx.async_eval([row.next_token for row in rows])  # type: ignore[no-untyped-call]

    @contextmanager
    def _measured(self, rows: int) -> Iterator[None]:
        began = self._clock()
        yield
        self._costs.add(rows, self._clock() - began)

    @property
    def may_probe(self) -> bool:
        """Whether a part of the probe is left, once it is known what single passes cost."""
        return not self._is_probed and self._costs.knows(1)

    def probe(self) -> None:
        """Computes the next part of the probe, some passes; needed parts are computed in time."""
        self._is_probed = next(self._probes, None) is None

    def _may_share(self, rows: int) -> bool:
        while not self._is_probed:
            self.probe()
        difference = self._differences.get(rows)
        return difference is not None and (not difference or self.depends_on_shape)

    @cached_property
    def depends_on_shape(self) -> bool:
        """Whether last bits depend on how many tokens a pass computes; on the MLX thread only.

        They do on a GPU, and on the CPU with OpenBLAS.
        """
        difference = chunk_difference(self._model, self._kv_bits)
        log.info("a chunk of a prompt compared with single tokens", difference=difference)
        return difference > 0

    def _probing(self) -> Iterator[int]:
        """Yields each number of rows once its difference is known."""
        try:
            for rows, difference in probed_differences(self._model, self._kv_bits, self._max_rows):
                self._differences[rows] = difference
                yield rows
        except Exception as error:
            # Whatever a model's code does with what it takes for one cache.
            self._unsupported = f"{type(error).__name__}: {error}"
            log.warning("answers cannot share passes of this model", exc_info=True)
            return
        log.info("shared passes probed", differences=self._differences)
        if any(self._differences.values()) and self.depends_on_shape:
            yield 1


class SharedModel:
    """Computes one more token of each of several caches, in one pass."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._attention = SharedAttention(model)

    def __call__(self, token_ids: mx.array, lives: Sequence[LiveCache]) -> mx.array:
        """The logits behind the tokens, of shape (caches, vocabulary).

        The layers of the caches then hold the tokens; `tokens` of each does not name its own yet.
        """
        offsets = mx.array([len(live) for live in lives])
        with self._attention:
            layers = side_by_side([live.layers for live in lives], offsets)
            return self._model(token_ids[:, None], cache=layers)[:, 0]


def probed_differences(
    model: LanguageModel, kv_bits: int, most: int
) -> Iterator[tuple[int, float]]:
    """How far passes of two to `most` rows are from single passes; 0 where all bits are equal.

    The largest difference of two logits, relative to the largest logit.
    """
    shared_model, lives, singles = SharedModel(model), list[LiveCache](), list[mx.array]()
    rng = random.Random(most)  # noqa: S311 - makes prompts
    for rows in range(1, most + 1):
        live = LiveCache.empty(model, kv_bits=kv_bits, max_checkpoints=1)
        prompt = [rng.randrange(_PROBE_VOCABULARY) for _ in range(_PROBE_TOKENS + rows)]
        prefill(model, live.layers, prompt)
        live.tokens.extend(prompt)
        lives.append(live)
        singles.append(model(mx.array([[rows]]), cache=live.fork(len(live), 1).layers)[:, 0])
        if rows > 1:
            forks = [live.fork(len(live), 1) for live in lives]
            shared = shared_model(mx.arange(1, rows + 1), forks)
            yield rows, _difference(mx.concatenate(singles), shared)


def chunk_difference(model: LanguageModel, kv_bits: int) -> float:
    """How far the last logits of a prompt in one pass are from those of its last token alone."""
    rng = random.Random(0)  # noqa: S311 - makes a prompt
    prompt = [rng.randrange(_PROBE_VOCABULARY) for _ in range(_PROBE_CHUNK_TOKENS)]
    whole = model(mx.array([prompt]), cache=new_layers(model, kv_bits))[:, -1]
    layers = new_layers(model, kv_bits)
    prefill(model, layers, prompt[:-1])
    return _difference(model(mx.array([prompt[-1:]]), cache=layers)[:, 0], whole)


def _difference(one: mx.array, other: mx.array) -> float:
    one, other = (logits.astype(mx.float32) for logits in (one, other))
    value: Any = (mx.abs(one - other).max() / mx.abs(one).max()).item()
    return value if math.isfinite(value) else math.inf
