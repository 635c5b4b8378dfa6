"""How long a request's turn is while its drafts are accepted."""

import random

import mlx.core as mx

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
