"""What status reports if memory is short for Claude Code's prompt."""

from anyclaude.supervisor.status import memory_problems
from anyclaude.worker.v1.worker_pb2 import MemoryStatus

GB = 10**9


def _memory(*, limit: int, available: int, caches: int = 0) -> MemoryStatus:
    return MemoryStatus(
        prompt_bytes=2 * GB,
        cache_limit_bytes=limit,
        available_bytes=available,
        cache_bytes=caches,
    )


def test_enough_memory_is_no_problem() -> None:
    """Nothing is reported if the prompt fits into the limit and the machine."""
    assert memory_problems(_memory(limit=8 * GB, available=2 * GB)) == []


def test_a_limit_below_one_prompt_is_reported() -> None:
    """The problem names needed and allowed bytes, and what to do."""
    (told,) = memory_problems(_memory(limit=GB, available=8 * GB))

    assert "2.0 GB" in told
    assert "1.0 GB" in told
    assert "cache.memory_limit_bytes" in told
    assert "mode lmstudio" in told


def test_a_machine_short_of_memory_is_reported() -> None:
    """The problem names needed and available bytes, and what to do."""
    (told,) = memory_problems(_memory(limit=8 * GB, available=GB))

    assert "2.0 GB" in told
    assert "1.0 GB" in told
    assert "Close other programs" in told
    assert "mode lmstudio" in told


def test_memory_of_the_caches_counts_as_available() -> None:
    """Memory that the caches already use for the prompt counts as available."""
    assert memory_problems(_memory(limit=8 * GB, available=GB, caches=GB)) == []
