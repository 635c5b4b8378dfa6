"""A cached prompt gives exactly what a fresh run gives, for every kind of layer cache.

Conversations are random: they append, edit anywhere, repeat exactly, fork to other sessions, and
are cancelled in the middle of prefill. Each request is compared with the same ids run through the
bare model in one pass: first-step log-probabilities bit by bit, then the generated tokens.
"""

import random
from collections.abc import Callable

import mlx.core as mx
import pytest

from anyclaude.mlx.adapter import Layer
from anyclaude.mlx.kv import layers as kinds
from tests.models import tiny
from tests.unit.mlx.kv.conversations import LONGEST, STABLE, Conversations
from tests.unit.mlx.kv.kv_engine import bench, fresh, is_fresh, words


@pytest.mark.parametrize(
    ("family", "kv_bits"),
    [*((family, 0) for family in tiny.Family), (tiny.Family.WIDE, 8), (tiny.Family.WIDE, 4)],
)
def test_a_new_cache_gives_what_the_bare_model_gives(family: tiny.Family, kv_bits: int) -> None:
    """A prompt that is computed in chunks, without any cache, equals one pass of the bare model."""
    prompt = words(random.Random(4), LONGEST)
    answer = fresh(family, prompt, kv_bits=kv_bits)
    assert is_fresh(answer, family, prompt, kv_bits=kv_bits)


@pytest.mark.parametrize("family", tiny.Family)
@pytest.mark.parametrize(("seed", "live_idle_seconds"), [(1, 3600.0), (2, -1.0)])
def test_cached_equals_fresh_over_random_conversations(
    family: tiny.Family, seed: int, live_idle_seconds: float
) -> None:
    """Random conversations are bit-equal to fresh runs and mostly reused.

    Once continuing in place, once with every cache put together from the tree.
    """
    talk, engine = Conversations(seed), bench(family, live_idle_seconds=live_idle_seconds)
    reused = total = 0
    for turn in range(25):
        session, prompt = talk.next()
        if talk.rng.random() < 0.2:
            engine.start(prompt, session, stable=STABLE).cancel_after(talk.rng.randrange(1, 6))
        answer = engine.start(prompt, session, stable=STABLE).answer()
        assert is_fresh(answer, family, prompt), f"turn {turn} of seed {seed}"
        if talk.rng.random() < 0.7:
            talk.prompts[session] = prompt + answer.tokens
        reused, total = reused + answer.reused, total + len(prompt)
    assert reused / total > 0.6


@pytest.mark.parametrize("family", tiny.Family)
def test_interleaved_requests_do_not_touch_each_other(family: tiny.Family) -> None:
    """Interleaved requests, some of one lineage, give the same answers as each alone."""
    talk, engine = Conversations(7), bench(family)
    requests = [(engine.start(p, s, stable=STABLE), p) for s, p in (talk.next() for _ in range(6))]
    for request, prompt in requests:
        assert is_fresh(request.answer(), family, prompt)


@pytest.mark.parametrize("family", tiny.Family)
def test_pruning_between_turns_keeps_answers_exact(family: tiny.Family) -> None:
    """Answers stay exact while a limit of about two conversations forces evictions."""
    probe = bench(family)
    probe.start(words(random.Random(0), 150), "probe").answer()
    limit = 2 * probe.engine.store.budget.nbytes
    talk, engine = Conversations(3), bench(family, limit)
    for _ in range(20):
        session, prompt = talk.next()
        assert is_fresh(engine.start(prompt, session, stable=STABLE).answer(), family, prompt)
        assert engine.engine.store.budget.nbytes <= limit
    assert engine.engine.store.budget.evictions > 0


def _zero_one_position(leaf: Layer) -> None:
    leaf.keys[..., 5:6, :] = 0
    leaf.values[..., 5:6, :] = 0


def _shift_by_one(leaf: Layer) -> None:
    leaf.keys = mx.roll(leaf.keys, 1, 2)
    leaf.values = mx.roll(leaf.values, 1, 2)


def _swap_segments(leaf: Layer) -> None:
    for name in ("keys", "values"):
        a = getattr(leaf, name)
        parts = [a[..., 10:20, :], a[..., :10, :], a[..., 20:, :]]
        setattr(leaf, name, mx.concatenate(parts, axis=2))


@pytest.mark.parametrize("mutate", [_zero_one_position, _shift_by_one, _swap_segments])
@pytest.mark.parametrize("family", tiny.Family)
def test_a_damaged_cache_is_noticed(family: tiny.Family, mutate: Callable[[Layer], None]) -> None:
    """The comparison detects one zeroed position, a shift, or a swap in one layer."""
    engine, rng = bench(family), random.Random(5)
    prompt = words(rng, 60)
    engine.start(prompt, "a").answer()
    (lineage,) = engine.engine.store.lineages()
    assert lineage.live is not None
    full = next(leaf for leaf in kinds.leaves(lineage.live.layers) if kinds.is_full_attention(leaf))
    mutate(full)
    longer = prompt + words(rng, 10)
    answer = engine.start(longer, "a").answer()
    assert answer.reused >= len(prompt) - 1
    assert not is_fresh(answer, family, longer)


@pytest.mark.parametrize("kv_bits", [8, 4])
def test_quantised_kv_is_exact_from_the_first_token(kv_bits: int) -> None:
    """With 8- or 4-bit KV a cached prompt equals a fresh one with the same setting."""
    talk = Conversations(5)
    engine = bench(tiny.Family.WIDE, kv_bits=kv_bits, live_idle_seconds=-1.0)
    for _ in range(15):
        session, prompt = talk.next()
        answer = engine.start(prompt, session, stable=STABLE).answer()
        assert is_fresh(answer, tiny.Family.WIDE, prompt, kv_bits=kv_bits)
