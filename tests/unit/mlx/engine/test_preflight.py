"""Memory shortage: which requests and models are admitted, and what is evicted."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.mlx.memory import (
    Machine,
    Preflight,
    Pressure,
    PressureWatch,
    ShortOfMemoryError,
    TooLargeError,
    check_weights,
)
from anyclaude.worker.v1.worker_pb2 import Failed
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, Request, bench, fresh, same, words

RESERVE = 1_000_000
WEIGHTS = 5_000_000
GB = 10**9


@dataclass
class Scripted(Machine):
    """A machine with as much memory as the test sets."""

    available: int = 0
    level: Pressure = Pressure.NORMAL
    total: int = 100 * GB
    # Memory that the program under test uses of what is available.
    used: Callable[[], int] = int

    def available_bytes(self) -> int:
        return self.available - self.used()

    def total_bytes(self) -> int:
        return self.total

    def pressure(self) -> Pressure:
        return self.level


@pytest.fixture(autouse=True)
def _no_pool() -> Iterator[None]:
    """Counts MLX's freed arrays as free memory, so that the figures are the test's alone."""
    mx.clear_cache()
    limit = mx.set_cache_limit(0)
    yield
    mx.set_cache_limit(limit)


def engine(machine: Machine, *, disk: DiskTier | None = None) -> Bench:
    # The worker measures the same at its start.
    warm = bench(tiny.Family.DENSE)
    warm.start(words(random.Random(0), 100), "warm").answer()
    return bench(
        tiny.Family.DENSE,
        disk=disk,
        preflight=Preflight(machine, RESERVE, WEIGHTS),
        bytes_per_token=warm.engine.store.budget.bytes_per_token,
    )


def with_idle_caches(machine: Scripted, disk: DiskTier | None = None) -> Bench:
    """An engine with six idle conversations, whose caches use memory of the machine."""
    it = engine(machine, disk=disk)
    for seed in range(2, 8):
        it.start(prompt(seed), f"idle {seed}").answer()
    machine.used = lambda: it.engine.store.budget.nbytes
    return it


def prompt(seed: int = 1) -> list[int]:
    return words(random.Random(seed), 300)


def enough(it: Bench, prompt_tokens: int = 300) -> int:
    """The bytes with which one request is admitted: its live cache and its tokens in the tree."""
    tokens = 2 * prompt_tokens + 1024
    return RESERVE + int(tokens * it.engine.store.budget.bytes_per_token)


def refused(it: Bench, request: Request) -> Failed:
    """How the request failed in its first turn."""
    it.engine.step()
    return request.events[-1].failed


def test_a_request_that_fits_is_admitted() -> None:
    """A request is admitted if exactly the memory it needs is free."""
    machine = Scripted()
    it = engine(machine)
    machine.available = enough(it)

    assert same(it.start(prompt(), "a").answer(), fresh(tiny.Family.DENSE, prompt()))
    assert it.engine.status.refused_requests == 0


def test_a_request_that_does_not_fit_now_is_sent_again_later() -> None:
    """With one byte less, 529 names what is needed, what there is, and what to do."""
    machine = Scripted()
    it = engine(machine)
    machine.available = enough(it) - 1
    failed = refused(it, it.start(prompt(), "a"))

    assert (failed.status, failed.HasField("should_retry")) == (529, False)
    assert failed.retry_after_seconds >= 1
    assert "mode lmstudio" in failed.message
    assert "mlx.memory_reserve_bytes" in failed.message
    needed = int(1624 * it.engine.store.budget.bytes_per_token)
    assert f"{needed / 1e9:.2f} GB" in failed.message
    assert it.engine.status.refused_requests == 1
    assert it.engine.store.budget.nbytes == 0

    machine.available = 10 * GB
    assert same(it.start(prompt(), "a").answer(), fresh(tiny.Family.DENSE, prompt()))


def test_a_request_that_never_fits_is_refused_for_good() -> None:
    """A request larger than the machine's memory beside the model is an error without retry."""
    machine = Scripted()
    it = engine(machine)
    machine.total = WEIGHTS + enough(it)
    assert refused(it, it.start(prompt(), "a")).status == 529

    machine.total -= 1
    failed = refused(it, it.start(prompt(), "a"))
    assert (failed.status, failed.should_retry) == (500, False)
    assert "this machine has" in failed.message
    assert "mode lmstudio" in failed.message


def test_idle_caches_are_evicted_before_a_refusal(tmp_path: Path) -> None:
    """Only the needed bytes are evicted, the oldest first, and read back from disk later."""
    machine = Scripted(available=10 * GB)
    disk = DiskTier(tmp_path, "model", 1 << 30)
    try:
        it = with_idle_caches(machine, disk)
        budget = it.engine.store.budget
        before = budget.nbytes
        # One live cache and one segment more than what is free.
        machine.available = enough(it) + before - before // 6

        assert same(it.start(prompt(), "a").answer(), fresh(tiny.Family.DENSE, prompt()))
        assert it.engine.status.refused_requests == 0
        live = [lineage.live is not None for lineage in it.engine.store.lineages()]
        assert live == [False, False, True, True, True, True, True]

        machine.available = 10 * GB
        assert it.start([*prompt(2), 1, 2], "idle 2").answer().reused >= 300
    finally:
        disk.close()


def test_no_cache_leaves_for_a_request_that_does_not_fit_without_it() -> None:
    """If evicting everything would not be enough, nothing is evicted."""
    machine = Scripted(available=10 * GB)
    it = with_idle_caches(machine)
    before = it.engine.store.budget.nbytes
    machine.available = enough(it) - 1

    assert refused(it, it.start(prompt(), "a")).status == 529
    assert it.engine.store.budget.nbytes == before
    assert all(lineage.live is not None for lineage in it.engine.store.lineages())


def test_two_requests_are_not_promised_the_same_bytes() -> None:
    """If one and a half requests fit, the second waits for the first, and is answered."""
    machine = Scripted()
    it = engine(machine)
    machine.available = enough(it) + (enough(it) - RESERVE) // 2
    first = it.start(prompt(1), "a")
    second = it.start(prompt(2), "b")
    it.engine.step()

    assert first.events
    assert it.engine.status.queued_requests == 1
    while not first.done:
        it.engine.step()
    assert not second.done
    # The first one's cache may be evicted for it.
    machine.available = 10 * GB
    assert same(second.answer(), fresh(tiny.Family.DENSE, prompt(2)))


@pytest.mark.parametrize(("level", "stays"), [(Pressure.WARN, True), (Pressure.CRITICAL, False)])
def test_pressure_evicts_idle_caches(level: Pressure, stays: bool) -> None:
    """A warning evicts the oldest part, a critical level everything; once for each rise."""
    machine = Scripted(available=10 * GB)
    it = engine(machine)
    for seed in range(2, 8):
        it.start(prompt(seed), f"idle {seed}").answer()
    store = it.engine.store
    for lineage in store.lineages():
        lineage.live = None
    used = store.budget.nbytes
    watch = PressureWatch(machine, 1.0, it.engine.relieve)
    watch.check()
    it.engine.call(lambda: None)
    it.engine.step()
    assert store.budget.nbytes == used

    machine.level = level
    for _ in range(3):
        watch.check()
        it.engine.call(lambda: None)
        it.engine.step()
    assert watch.level is level
    if stays:
        fifth = int(used * (1 - store.budget.prune_fraction))
        assert used * 0.5 < store.budget.nbytes <= fifth
        kept = it.start([*prompt(7), 1, 2], "idle 7").answer()
        assert kept.reused >= 300
    else:
        assert store.budget.nbytes == 0


def test_a_model_that_does_not_fit_is_not_loaded(tmp_path: Path) -> None:
    """Weights plus reserve are compared with available and total memory, to the byte."""
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    check_weights(tmp_path, Scripted(available=RESERVE + 1000), RESERVE)
    with pytest.raises(ShortOfMemoryError, match="mode lmstudio"):
        check_weights(tmp_path, Scripted(available=RESERVE + 999, total=RESERVE + 1000), RESERVE)
    with pytest.raises(TooLargeError, match="mode lmstudio"):
        check_weights(tmp_path, Scripted(available=RESERVE + 999, total=RESERVE + 999), RESERVE)


def test_the_refusal_names_every_number() -> None:
    """The error names needed, available and reserved bytes in one unit."""
    error = Preflight(Scripted(available=3 * GB), GB).refusal(5 * GB)

    assert isinstance(error, ApiError)
    assert all(f"{number}.00 GB" in error.message for number in (5, 2, 1))
