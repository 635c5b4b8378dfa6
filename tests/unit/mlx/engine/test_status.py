"""The engine's status for other threads."""

import random

import mlx.core as mx
import pytest

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


def test_an_error_of_mlx_leaves_the_requests_to_the_next_process() -> None:
    """The loop ends and no request gets a response, so that the front end submits them again."""
    it = bench(tiny.Family.DENSE)

    def out_of_memory(logprobs: mx.array) -> mx.array:
        raise RuntimeError("[malloc] Unable to allocate")

    prompt = words(random.Random(1), 100)
    requests = [it.start(prompt, "a"), it.start(prompt, "b", sampler=out_of_memory)]
    with pytest.raises(RuntimeError, match="malloc"):
        it.engine.run()

    kinds = {event.WhichOneof("event") for request in requests for event in request.events}
    assert "started" in kinds
    assert "failed" not in kinds
