"""The engine's status for other threads."""

import random

from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import ANSWER_TOKENS, bench, words


def test_the_status_is_replaced_and_never_changed() -> None:
    """A status that another thread has read never changes afterwards."""
    it = bench(tiny.Family.DENSE)
    before = it.engine.status
    prompt = words(random.Random(1), 100)
    request = it.start(prompt, "a")
    it.engine.step()
    during = it.engine.status
    request.answer()
    it.start([*prompt, *words(random.Random(2), 10)], "a").answer()
    after = it.engine.status
    assert (before.running_requests, before.cache_bytes, before.computed_tokens) == (0, 0, 0)
    assert (during.running_requests, during.generated_tokens) == (1, 0)
    assert (after.running_requests, after.generated_tokens) == (0, 2 * ANSWER_TOKENS)
    assert (after.reused_tokens, after.computed_tokens) == (100, 110)
    assert after.cache_bytes == it.engine.store.budget.nbytes > 0
    assert after.bytes_per_token == it.engine.store.budget.bytes_per_token > 0
