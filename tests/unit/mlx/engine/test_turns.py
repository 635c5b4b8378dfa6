"""When a request's turn ends, and what is kept of a request that does not end itself."""

import random

import mlx.core as mx

from anyclaude.mlx.tokens import token_array
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import SETTINGS, bench, words

TOKENS = 200


def test_a_turn_ends_although_every_draft_is_accepted() -> None:
    """A long copy pauses after a few passes, so that others run and it can be cancelled."""
    it = bench(tiny.Family.DENSE)
    request = it.start(
        words(random.Random(1), 20), "s", max_tokens=TOKENS, sampler=lambda _: mx.array([7])
    )
    lengths: list[int] = []
    while not request.done:
        before = len(request.tokens.ids)
        it.engine.step()
        lengths.append(len(request.tokens.ids) - before)

    assert it.engine.status.accepted_tokens > TOKENS / 2
    assert max(lengths) < SETTINGS.decode_steps_per_turn + SETTINGS.draft_tokens + 1


def test_a_stopping_worker_keeps_what_it_computed() -> None:
    """A prompt that is half computed when the grace ends is not computed again after a restart."""
    it = bench(tiny.Family.DENSE)
    prompt = words(random.Random(2), 200)
    request = it.start(prompt, "s")
    for _ in range(3):
        it.engine.step()
    it.engine.stop(0)
    it.engine.run()

    assert request.events[-1].failed.status == 529
    assert it.engine.store.tree.match(token_array(prompt)).length >= SETTINGS.prefill_chunk_tokens
