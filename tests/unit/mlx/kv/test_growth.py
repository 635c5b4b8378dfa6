"""What the worker keeps for each request is bounded: more requests leave no more behind."""

from pathlib import Path
from random import Random

import pytest

from anyclaude.mlx.kv_disk import Bounds, DiskTier
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, bench, words

RECORDS = 20
SESSIONS = 30
FEW_CONVERSATIONS_BYTES = 150_000


def talk(it: Bench, rng: Random, prefix: list[int], first: int) -> None:
    """Answers one request of each of some new conversations, which share a stable prefix."""
    for number in range(first, first + SESSIONS):
        prompt = prefix + words(rng, 10)
        it.start(prompt, f"session-{number}", len(prefix), max_tokens=1).answer()
    if it.disk is not None:
        assert it.disk.flush(60)
    it.engine.store.budget.tidy()


def kept(it: Bench) -> tuple[int, int]:
    """Segments and conversations that the store knows."""
    store = it.engine.store
    return len(list(store.tree.nodes())), len(store.lineages())


def test_a_full_disk_bounds_what_is_known_of_conversations(tmp_path: Path) -> None:
    """Segments whose record was evicted, and conversations without any, are forgotten."""
    bounds = Bounds(min_free_bytes=0, max_records=RECORDS)
    disk = DiskTier(tmp_path, "model", 1 << 30, bounds=bounds)
    try:
        it, rng = bench(tiny.Family.DENSE, FEW_CONVERSATIONS_BYTES, disk=disk), Random(1)
        prefix = words(rng, 70)
        for first in (0, SESSIONS):
            talk(it, rng, prefix, first)
            assert disk.status().records <= RECORDS
            in_memory = sum(node.in_memory for node in it.engine.store.tree.nodes())
            assert max(kept(it)) <= RECORDS + in_memory
        assert disk.status().evicted
    finally:
        disk.close()


@pytest.mark.parametrize("family", [tiny.Family.DENSE, tiny.Family.HYBRID])
def test_full_memory_bounds_what_is_known_of_conversations(family: tiny.Family) -> None:
    """A conversation whose own segments were evicted is forgotten, although its prefix stays."""
    it, rng = bench(family, FEW_CONVERSATIONS_BYTES), Random(1)
    prefix = words(rng, 70)
    for first in (0, SESSIONS):
        talk(it, rng, prefix, first)
        segments, conversations = kept(it)
        assert conversations <= segments
    assert it.engine.status.evictions
