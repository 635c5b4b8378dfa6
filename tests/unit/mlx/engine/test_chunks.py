"""The sizes of prefill chunks: by measured speed, within memory, and exact whatever they are."""

import random
from itertools import pairwise
from typing import Any

import pytest

from anyclaude.mlx.engine.chunks import ChunkSizes, score_heads
from anyclaude.runtime.settings import MlxSettings
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, Request, bench, fresh, same, words

_MEASURED = MlxSettings(shared_prefill_chunk_tokens=64)


class _Clock:
    """Each reading is `seconds` after the one before."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def _measured(tokens_per_second: float, settings: MlxSettings = _MEASURED) -> ChunkSizes:
    sizes = ChunkSizes(settings, clock=_Clock(512 / tokens_per_second))
    with sizes.timed(512):
        pass
    return sizes


@pytest.mark.parametrize(
    ("tokens_per_second", "running", "tokens"),
    [
        (50, 1, 256),
        (300, 1, 256),
        (600, 1, 512),
        (1500, 1, 1024),
        (2048, 1, 2048),
        (30_000, 1, 2048),
        (2048, 2, 1024),
        (2048, 3, 512),
        (30_000, 8, 2048),
        (300, 4, 256),
    ],
)
def test_a_step_takes_about_a_second(tokens_per_second: float, running: int, tokens: int) -> None:
    """The size follows the measured speed within 256 and 2,048, shared among running requests."""
    sizes = _measured(tokens_per_second)
    assert sizes.tokens(0, running=running, decoding=False) == tokens


def test_the_size_follows_a_speed_that_changes() -> None:
    """A machine that gets slower or faster gets other sizes within a few steps."""
    clock = _Clock()
    sizes = ChunkSizes(_MEASURED, clock=clock)
    for speed, tokens in ((4000, 2048), (300, 256), (1100, 1024)):
        clock.seconds = 512 / speed
        for _ in range(6):
            with sizes.timed(512):
                pass
        assert sizes.tokens(0, running=1, decoding=False) == tokens


def test_a_short_step_is_not_measured() -> None:
    """The end of a prompt, which is slow per token, changes no size."""
    sizes = _measured(3000)
    with sizes.timed(10):
        pass
    assert sizes.tokens(0, running=1, decoding=False) == 2048


def test_before_any_measurement() -> None:
    """The first step has 512 tokens."""
    assert ChunkSizes(_MEASURED).tokens(0, running=1, decoding=False) == 512


def test_a_setting_wins_over_the_measurement() -> None:
    """A size from the settings is used at any speed; while someone decodes, the shared one is."""
    sizes = _measured(30_000, MlxSettings(prefill_chunk_tokens=96, shared_prefill_chunk_tokens=32))
    assert sizes.tokens(0, running=1, decoding=False) == 96
    assert sizes.tokens(0, running=2, decoding=True) == 32
    assert _measured(30_000).tokens(0, running=2, decoding=True) == 64


@pytest.mark.parametrize(
    ("heads", "context", "tokens"),
    [
        (0, 200_000, 2048),
        (32, 0, 2048),
        (32, 8_000, 512),
        (32, 60_000, 128),
        (64, 250_000, 16),
        (4, 18_490, 2048),
    ],
)
def test_scores_bound_the_size(heads: int, context: int, tokens: int) -> None:
    """Scores of heads x step x context x 4 bytes stay within the setting, down to 16 tokens."""
    sizes = ChunkSizes(MlxSettings(prefill_chunk_tokens=2048), score_heads=heads)
    size = sizes.tokens(context, running=1, decoding=False)
    assert size == tokens
    assert size == 16 or heads * size * (context + size) * 4 <= 1 << 30


def test_admission_counts_the_scores() -> None:
    """What scores may take of memory is known before a request starts."""
    sizes = ChunkSizes(MlxSettings(), score_heads=32)
    assert sizes.scores_bytes(500) == 32 * 500 * 500 * 4
    assert sizes.scores_bytes(60_000) == 1 << 30
    assert ChunkSizes(MlxSettings()).scores_bytes(60_000) == 0


@pytest.mark.parametrize(
    ("config", "kv_bits", "on_metal", "heads"),
    [
        ({"num_attention_heads": 32, "head_dim": 128}, 0, True, 0),
        ({"num_attention_heads": 32, "head_dim": 128}, 8, True, 32),
        ({"num_attention_heads": 32, "head_dim": 128}, 0, False, 32),
        ({"num_attention_heads": 16, "head_dim": 256}, 0, True, 16),
        ({"num_attention_heads": 9, "hidden_size": 576}, 0, True, 0),
        ({"text_config": {"num_attention_heads": 8, "head_dim": 256}}, 0, True, 8),
        ({"num_attention_heads": 20, "head_dim": 64, "kv_lora_rank": 512}, 0, True, 20),
        ({"num_attention_heads": [8, 16]}, 0, True, 64),
        ({}, 0, True, 64),
    ],
)
def test_heads_whose_scores_are_kept(
    config: dict[str, Any], kv_bits: int, on_metal: bool, heads: int
) -> None:
    """Only unquantised heads of certain sizes have a fused kernel, and only on Metal."""
    assert score_heads(config, kv_bits, on_metal=on_metal) == heads


def _chunks(request: Request) -> list[int]:
    """The sizes of the chunks that a request was computed in; the first event comes before them."""
    lengths = [e.progress.prefilled_tokens for e in request.events if e.HasField("progress")]
    return [after - before for before, after in pairwise(lengths)]


def _paced(tokens_per_second: float) -> Bench:
    """An engine that has measured this speed."""
    return bench(tiny.Family.DENSE, chunks=_measured(tokens_per_second))


def test_the_engine_applies_the_sizes() -> None:
    """Alone, a request gets the measured size; beside one that decodes, the shared one."""
    prompt = words(random.Random(1), 700)
    it = _paced(600)
    alone = it.start(prompt, "alone")
    alone.answer()
    assert _chunks(alone)[0] == 512

    it = _paced(600)
    decoding = it.start(words(random.Random(2), 20), "decoding", max_tokens=100)
    while not decoding.tokens.ids:
        it.engine.step()
    beside = it.start(prompt, "beside")
    beside.answer()
    assert set(_chunks(beside)[:-1]) == {64}
    assert not decoding.done


def test_two_prefills_share_a_second() -> None:
    """Two requests that are computed in turns get half of the size each."""
    it = _paced(1100)
    first = it.start(words(random.Random(1), 1200), "a")
    second = it.start(words(random.Random(2), 1200), "b")
    it.engine.step()
    it.engine.step()
    it.engine.step()
    assert [_chunks(first)[:1], _chunks(second)[:1]] == [[512], [512]]


class _Mixed(ChunkSizes):
    """One size after the other."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(_MEASURED)
        self._sizes = iter(sizes)

    def tokens(self, context_tokens: int, *, running: int, decoding: bool) -> int:
        return next(self._sizes)


@pytest.mark.parametrize("family", tiny.Family)
def test_every_size_gives_the_same_bits(family: tiny.Family) -> None:
    """A prompt of large and mixed steps equals one of small steps, bit by bit.

    It reuses what steps of another size computed. One family has quantised KV.
    """
    rng, kv_bits = random.Random(4), 8 if family is tiny.Family.WIDE else 0
    it = bench(family, kv_bits=kv_bits, chunks=_Mixed(2048, 256, 512, 16, 256))
    prompt = words(rng, 2100)
    first = it.start(prompt, "a", mark_tokens=5000)
    first.answer()
    assert _chunks(first) == [2048, 51]
    prompt += words(rng, 600)
    longer = it.start(prompt, "a", mark_tokens=5000)
    answer = longer.answer()
    assert _chunks(longer)[1:] == [16, 71 + 2100 - answer.reused]
    assert same(answer, fresh(family, prompt, kv_bits=kv_bits, mark_tokens=5000))
