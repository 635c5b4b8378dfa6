"""Active conversations hold the KV of a shared prefix once, and their next turns reuse it."""

from random import Random

from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import bench, is_fresh, words

SESSIONS = 8
SHARED_TOKENS = 600
FAMILY = tiny.Family.DENSE


def test_active_conversations_hold_shared_tokens_once() -> None:
    """Eight use at most 1.5 times the bytes of the distinct tokens, and continue exactly."""
    it, rng = bench(FAMILY, live_fraction=0.5), Random(1)
    budget = it.engine.store.budget
    shared = words(rng, SHARED_TOKENS)
    prompts = {f"session-{number}": shared + words(rng, 10) for number in range(SESSIONS)}
    for session, prompt in prompts.items():
        answer = it.start(prompt, session, SHARED_TOKENS).answer()
        prompts[session] = prompt + answer.tokens + words(rng, 10)
    assert budget.nbytes <= 1.5 * it.engine.store.tree.nbytes
    for session, prompt in prompts.items():
        answer = it.start(prompt, session, SHARED_TOKENS).answer()
        assert len(prompt) - answer.reused <= 12
        assert is_fresh(answer, FAMILY, prompt)


def test_the_only_active_conversation_keeps_its_live_cache() -> None:
    """One conversation is continued in place, without a copy."""
    it, rng = bench(FAMILY, live_fraction=0.5), Random(1)
    it.start(words(rng, 100), "only", 70).answer()
    (lineage,) = it.engine.store.lineages()
    assert lineage.live is not None
