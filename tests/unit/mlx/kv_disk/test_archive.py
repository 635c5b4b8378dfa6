"""The disk tier below the tree: evicted segments are read back exactly or not at all."""

import errno
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anyclaude.mlx.kv.operations import Selection, prune
from anyclaude.mlx.kv_disk import Bounds, DiskState, DiskTier, Point
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, bench, fresh, same, words

BUDGET = 1 << 30
FAMILIES = [family for family in tiny.Family if family is not tiny.Family.WIDE]


@contextmanager
def stored(
    folder: Path, family: tiny.Family, *, fingerprint: str = "model-a", limit: int = 1 << 30
) -> Iterator[Bench]:
    """An engine whose caches outlive it in `folder`."""
    disk = DiskTier(folder, fingerprint, BUDGET)
    try:
        yield bench(family, limit, live_idle_seconds=-1.0, disk=disk)
    finally:
        disk.close()


class Disk:
    """A disk tier that refuses writes until it heals."""

    def __init__(self, folder: Path) -> None:
        self._is_full = threading.Event()
        self._is_full.set()
        self.is_writable = threading.Event()
        bounds = Bounds(retry_seconds=2.0, min_free_bytes=0)
        self.tier = DiskTier(folder, "model-a", BUDGET, bounds=bounds, failpoint=self._refuse)
        self.tier.on_writable(self.is_writable.set)

    def _refuse(self, _point: Point) -> None:
        if self._is_full.is_set():
            raise OSError(errno.ENOSPC, "the disk is full")

    def heal(self, save_missing: Callable[[], None]) -> None:
        """Saves when the tier asks for it, until everything is stored."""
        self._is_full.clear()
        while self.tier.status().state is not DiskState.SERVING:
            assert self.is_writable.wait(60)
            self.is_writable.clear()
            save_missing()
            assert self.tier.flush(60)


def conversation(seed: int = 1) -> list[int]:
    return words(random.Random(seed), 300)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restart_finds_what_was_computed(family: tiny.Family, tmp_path: Path) -> None:
    """After a restart the prompt is read from disk, and the answer equals a fresh one."""
    prompt = conversation()
    with stored(tmp_path, family) as first:
        first.start(prompt, "a", stable=200).answer()
    longer = prompt + words(random.Random(2), 20)
    with stored(tmp_path, family) as second:
        assert second.engine.store.budget.nbytes == 0
        answer = second.start(longer, "a", stable=200).answer()
    assert answer.reused >= len(prompt) - 1
    assert same(answer, fresh(family, longer))


def test_warming_brings_the_stable_prefix_into_memory(tmp_path: Path) -> None:
    """A stored prefix is in memory before the first request."""
    with stored(tmp_path, tiny.Family.DENSE) as first:
        first.start(conversation(), "a", stable=200).answer()
    with stored(tmp_path, tiny.Family.DENSE) as second:
        store = second.engine.store
        assert store.warm() == 200
        assert store.budget.nbytes >= int(200 * store.tree.nbytes / 200)
        assert all(node.in_memory for node in store.tree.nodes() if node.end <= 200)


def test_another_model_never_sees_the_caches(tmp_path: Path) -> None:
    """Another fingerprint reuses nothing; the first one again reuses everything."""
    prompt = conversation()
    for fingerprint, reused in (("model-a", 0), ("model-b", 0), ("model-a", len(prompt) - 1)):
        with stored(tmp_path, tiny.Family.DENSE, fingerprint=fingerprint) as engine:
            assert engine.start(prompt, "a").answer().reused == reused


def test_a_damaged_record_is_computed_again(tmp_path: Path) -> None:
    """A flipped bit in any record only recomputes its tokens."""
    prompt = conversation()
    with stored(tmp_path, tiny.Family.DENSE) as first:
        first.start(prompt, "a", stable=200).answer()
    for record in tmp_path.rglob("*.safetensors"):
        content = bytearray(record.read_bytes())
        content[-100] ^= 1
        record.write_bytes(content)
    with stored(tmp_path, tiny.Family.DENSE) as second:
        answer = second.start(prompt, "a", stable=200).answer()
        assert answer.reused == 0
        assert second.disk is not None
        assert second.disk.status().quarantined > 0
    assert same(answer, fresh(tiny.Family.DENSE, prompt))


def test_pruning_everything_empties_the_disk_too(tmp_path: Path) -> None:
    """Pruned caches do not come back after a restart."""
    with stored(tmp_path, tiny.Family.DENSE) as first:
        first.start(conversation(), "a", stable=200).answer()
        prune(first.engine.store, Selection(all=True))
    with stored(tmp_path, tiny.Family.DENSE) as second:
        assert second.start(conversation(), "a", stable=200).answer().reused == 0


def test_a_split_keeps_the_records_after_it(tmp_path: Path) -> None:
    """Splitting a stored segment keeps both branches on disk."""
    prompt = conversation()
    fork = prompt[:150] + words(random.Random(3), 50)
    with stored(tmp_path, tiny.Family.DENSE) as first:
        first.start(prompt, "a").answer()
        first.start([*prompt, *words(random.Random(4), 40)], "a").answer()
        first.start(fork, "b").answer()
    with stored(tmp_path, tiny.Family.DENSE) as second:
        assert second.start(fork, "b").answer().reused == len(fork) - 1
        longer = [*prompt, *words(random.Random(4), 40)]
        assert second.start(longer, "a").answer().reused == len(longer) - 1


@pytest.mark.parametrize("written_requests", [0, 1, 2])
def test_a_split_keeps_the_records_that_wait_to_be_written(
    written_requests: int, tmp_path: Path
) -> None:
    """A segment that is split while its records are queued is stored before its children."""
    prompt = conversation()
    longer = [*prompt, *words(random.Random(4), 40)]
    fork = prompt[:150] + words(random.Random(3), 50)
    disk_answers = threading.Event()
    disk_answers.set()

    def wait_for_disk(point: Point) -> None:
        if point is Point.EVICTED:
            assert disk_answers.wait(60)

    disk = DiskTier(tmp_path, "model-a", BUDGET, failpoint=wait_for_disk)
    try:
        engine = bench(tiny.Family.DENSE, live_idle_seconds=-1.0, disk=disk)
        for index, (tokens, session) in enumerate([(prompt, "a"), (longer, "a"), (fork, "b")]):
            if index == written_requests:
                assert disk.flush(60)
                disk_answers.clear()
            engine.start(tokens, session).answer()
    finally:
        disk_answers.set()
        disk.close()
    with stored(tmp_path, tiny.Family.DENSE) as second:
        assert second.start(fork, "b").answer().reused == len(fork) - 1
        assert second.start(longer, "a").answer().reused == len(longer) - 1


def test_a_failed_record_is_written_with_the_next_request(tmp_path: Path) -> None:
    """A record that failed is written again later, so that its children can be stored."""
    prompt = conversation()
    longer = [*prompt, *words(random.Random(4), 40)]
    refuses = threading.Event()
    refuses.set()

    def refuse(_point: Point) -> None:
        if refuses.is_set():
            raise OSError(errno.EIO, "the disk refuses")

    disk = DiskTier(tmp_path, "model-a", BUDGET, bounds=Bounds(retry_seconds=0.0), failpoint=refuse)
    try:
        engine = bench(tiny.Family.DENSE, live_idle_seconds=-1.0, disk=disk)
        engine.start(prompt, "a").answer()
        assert disk.flush(60)
        assert (disk.status().failed_writes, disk.status().records) == (1, 0)
        refuses.clear()
        engine.start(longer, "a").answer()
    finally:
        disk.close()
    with stored(tmp_path, tiny.Family.DENSE) as second:
        assert second.start(longer, "a").answer().reused == len(longer) - 1


def test_what_a_full_disk_refused_is_written_once_there_is_room(tmp_path: Path) -> None:
    """Without any further request the prefix is stored, and all that builds on it."""
    prompts = [conversation()]
    for seed in (4, 5):
        prompts.append([*prompts[-1], *words(random.Random(seed), 40)])
    disk = Disk(tmp_path)
    try:
        engine = bench(tiny.Family.DENSE, live_idle_seconds=-1.0, disk=disk.tier)
        for prompt in prompts:
            engine.start(prompt, "a", stable=200).answer()
        assert disk.tier.flush(60)
        assert disk.tier.status().records == 0
        assert disk.tier.status().state is DiskState.FAILING
        disk.heal(engine.engine.store.save_missing)
    finally:
        disk.tier.close()
    with stored(tmp_path, tiny.Family.DENSE) as second:
        assert second.start(prompts[-1], "a").answer().reused == len(prompts[-1]) - 1


def test_a_removed_folder_is_made_anew(tmp_path: Path) -> None:
    """What is in memory is stored again, and so is what builds on it."""
    prompt = conversation()
    longer = [*prompt, *words(random.Random(4), 40)]
    with stored(tmp_path / "kv", tiny.Family.DENSE) as first:
        store, disk = first.engine.store, first.disk
        assert disk is not None
        asked = threading.Event()
        disk.on_writable(asked.set)
        first.start(prompt, "a", stable=200).answer()
        assert disk.flush(60)
        shutil.rmtree(tmp_path / "kv")
        first.start(longer, "a", stable=200).answer()
        assert asked.wait(60)
        store.save_missing()
        assert disk.flush(60)
        assert disk.status().state is DiskState.SERVING
    with stored(tmp_path / "kv", tiny.Family.DENSE) as second:
        assert second.start(longer, "a", stable=200).answer().reused == len(longer) - 1


def test_a_segment_that_lost_its_record_is_written_with_the_next_request(tmp_path: Path) -> None:
    """A record that the tier dropped does not keep those that build on it from being stored."""
    prompt = conversation()
    longer = [*prompt, *words(random.Random(4), 40)]
    with stored(tmp_path, tiny.Family.DENSE) as first:
        disk = first.disk
        assert disk is not None
        first.start(prompt, "a").answer()
        assert disk.flush(60)
        disk.remove([info.record_id for info in disk.records()])
        first.start(longer, "a").answer()
    with stored(tmp_path, tiny.Family.DENSE) as second:
        assert second.start(longer, "a").answer().reused == len(longer) - 1
