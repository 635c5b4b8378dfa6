"""What status reports if memory is short for Claude Code's prompt."""

from anyclaude.supervisor.status import memory_problems, wired_notices
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


def test_a_model_near_the_limit_of_metal_is_noticed() -> None:
    """Weights and one prompt above nine tenths of the working set are named with the numbers."""
    near = MemoryStatus(weights_bytes=34 * GB, prompt_bytes=2 * GB, working_set_bytes=40 * GB)
    assert wired_notices(near) == []

    near.weights_bytes += 1
    (notice,) = wired_notices(near)
    assert all(number in notice for number in ("34.0 GB", "2.0 GB", "40.0 GB"))
    assert "mlx.wired_limit_bytes" in notice


def test_without_metal_there_is_no_such_limit() -> None:
    """A machine without Metal has no working set to be near to."""
    assert wired_notices(MemoryStatus(weights_bytes=34 * GB)) == []
