"""The disk tier returns what was saved, in this process and the next."""

import math
import stat
import threading

import mlx.core as mx
import numpy as np
import pytest

from anyclaude.mlx.kv_disk import Bounds, DiskState, Segment
from tests.unit.mlx.kv_disk import records as disk

DTYPES = [
    mx.bool_, mx.uint8, mx.int8, mx.uint16, mx.int16, mx.uint32, mx.int32, mx.uint64, mx.int64,
    mx.float16, mx.bfloat16, mx.float32, mx.float64, mx.complex64,
]  # fmt: skip
SHAPES: list[tuple[int, ...]] = [(), (0,), (3, 0, 2), (5,), (1, 2, 3, 4)]


def _every_array() -> dict[str, mx.array]:
    random = np.random.default_rng(5)
    arrays = {}
    for dtype in DTYPES:
        for shape in SHAPES:
            count = math.prod(shape) * dtype.size
            raw = random.integers(0, 2 if dtype == mx.bool_ else 256, count, dtype=np.uint8)
            flat = mx.array(raw).view(dtype, stream=mx.cpu) if count else mx.zeros((0,), mx.uint8)
            array = mx.reshape(flat, shape, stream=mx.cpu)
            if not count:
                array = mx.zeros(shape, dtype, stream=mx.cpu)
            arrays[f"{dtype}/{len(shape)}.{shape}"] = array
    mx.eval(*arrays.values())
    return arrays


def test_every_type_and_shape_comes_back_to_the_bit():
    """Scalars, empty arrays, NaNs and every MLX type are unchanged after a reopening."""
    saved = Segment("ab", "", 3, np.arange(5, dtype=np.int32), _every_array(), {}, "k", "", False)
    with disk.folder() as path:
        with disk.tier(path) as tier:
            assert tier.save(saved, wait=True)
        with disk.tier(path) as tier:
            assert disk.same(tier.load("ab"), saved)


def test_arrays_that_are_not_contiguous_come_back():
    """Transposed and sliced arrays are stored with the values they show."""
    base = mx.arange(24, dtype=mx.uint32).reshape(4, 6)
    arrays = {"transposed": base.T, "slice": base[1:3, 2:5]}
    mx.eval(*arrays.values())
    saved = Segment("ab", "", 0, np.arange(2, dtype=np.int32), arrays, {}, "k", "", False)
    with disk.folder() as path, disk.tier(path) as tier:
        assert tier.save(saved, wait=True)
        assert disk.same(tier.load("ab"), saved)


def test_several_chunks_are_each_checked():
    """An array of several 4 MiB chunks is restored, and a flip in the last one is detected."""
    saved = disk.segment("ab", floats=3_000_000)
    with disk.folder() as path, disk.tier(path, budget_bytes=100_000_000) as tier:
        assert tier.save(saved, wait=True)
        assert disk.same(tier.load("ab"), saved)
        file = disk.file_of(path, "ab")
        with file.open("r+b") as content:
            content.seek(-3, 2)
            content.write(b"\xff\x00\xff")
        assert tier.load("ab") is None


@pytest.mark.parametrize(
    "meta", [{}, {"a": [1, 2.5, None, "ü"], "b": {"c": True}, "n": float("inf")}]
)
def test_meta_comes_back(meta):
    """Meta is JSON of any depth, and may be empty."""
    arrays: dict[str, mx.array] = {}
    saved = Segment("ab", "", 0, np.zeros(0, np.int32), arrays, meta, "", "", False)
    with disk.folder() as path, disk.tier(path) as tier:
        assert tier.save(saved, wait=True)
        assert tier.load("ab") == ({}, meta)


def test_records_are_listed_parents_first_with_their_labels():
    """Labels, tokens, offsets, pins and last use survive; records are listed parents first."""
    clock = disk.Clock()
    with disk.folder() as path:
        chain = [
            disk.segment("f1", pinned=True),
            disk.segment("a2", "f1", start=8),
            disk.segment("03", "a2", start=16),
        ]
        with disk.tier(path, clock=clock) as tier:
            for saved in chain:
                assert tier.save(saved)
            clock.now += 7
            assert tier.flush(20)
            tier.touch(["a2"])
            tier.pin(["f1"], False)
            tier.pin(["03"], True)
        with disk.tier(path, clock=clock) as tier:
            records = tier.records()
            assert [r.record_id for r in records] == ["f1", "a2", "03"]
            assert [r.pinned for r in records] == [False, False, True]
            assert [r.last_use for r in records] == [clock.now - 7, clock.now, clock.now - 7]
            for record, saved in zip(records, chain, strict=True):
                assert (record.parent_id, record.start) == (saved.parent_id, saved.start)
                assert (record.kind, record.session_id) == ("turn", "session")
                assert np.array_equal(record.token_ids, saved.token_ids)
                size = disk.file_of(path, record.record_id).stat().st_size
                assert record.nbytes == size


def test_files_are_private():
    """Everything in the folder is readable by its owner only."""
    with disk.folder() as path, disk.tier(path) as tier:
        assert tier.save(disk.segment("ab"), wait=True)
        assert tier.save(disk.segment("cd", pinned=True), wait=True)
        pinned = disk.file_of(path, "cd")
        for entry in (path / "kv", *(path / "kv").rglob("*")):
            wanted = 0o700 if entry.is_dir() else 0o400 if entry == pinned else 0o600
            assert stat.S_IMODE(entry.stat().st_mode) == wanted, entry


def test_saving_again_takes_the_pin_of_the_latest():
    """Saving a record again replaces its pin and its time."""
    clock = disk.Clock()
    with disk.folder() as path, disk.tier(path, clock=clock) as tier:
        assert tier.save(disk.segment("ab"), wait=True)
        clock.now += 5
        assert tier.save(disk.segment("ab", pinned=True), wait=True)
        (record,) = tier.records()
        assert (record.last_use, record.pinned) == (clock.now, True)
        assert tier.status().nbytes == disk.bytes_on_disk(path)


def test_replacing_keeps_the_children():
    """A replaced record keeps its children, and its new content is loaded."""
    with disk.folder() as path:
        new = disk.segment("ab", seed=77)
        with disk.tier(path) as tier:
            assert tier.save(disk.segment("ab"), wait=True)
            child = disk.segment("cd", "ab", start=8)
            assert tier.save(child, wait=True)
            assert tier.save(new, wait=True)
            assert disk.same(tier.load("ab"), new)
        with disk.tier(path) as tier:
            assert disk.ids(tier) == ["ab", "cd"]
            assert disk.same(tier.load("ab"), new)
            assert disk.same(tier.load("cd"), child)


def test_a_split_segment_replaces_the_whole_one():
    """After a split the lower half has the name of the whole and is not mistaken for it."""
    with disk.folder() as path:
        upper = disk.segment("cd")
        lower = disk.segment("ab", "cd", start=8)
        with disk.tier(path) as tier:
            assert tier.save(disk.segment("ab", tokens=16), wait=True)
            assert tier.save(upper)
            assert tier.save(lower, wait=True)
            assert disk.same(tier.load("ab"), lower)
        with disk.tier(path) as tier:
            assert [(r.record_id, r.start) for r in tier.records()] == [("cd", 0), ("ab", 8)]
            assert disk.same(tier.load("ab"), lower)


def test_a_waiting_segment_is_served_from_memory():
    """A queued segment can be loaded; of two writes of a record the later one counts."""
    gate = threading.Event()
    told: list[bool] = []
    saved = disk.segment("ab")
    with (
        disk.folder() as path,
        disk.tier(path, failpoint=lambda _: _passed(gate)) as tier,
    ):
        assert tier.save(saved, told.append)
        assert tier.save(saved, told.append)
        assert tier.holds("ab")
        assert disk.same(tier.load("ab"), saved)
        gate.set()
        assert tier.flush(20)
        assert told == [False, True]
        assert disk.same(tier.load("ab"), saved)


def test_a_full_queue_refuses_and_counts():
    """A save beyond the queue's bytes is refused and counted; one large segment may wait alone."""
    gate = threading.Event()
    bounds = Bounds(queue_bytes=1000, min_free_bytes=0)
    with (
        disk.folder() as path,
        disk.tier(path, bounds=bounds, failpoint=lambda _: _passed(gate)) as tier,
    ):
        assert tier.save(disk.segment("ab", floats=1000))
        assert not tier.save(disk.segment("cd"))
        status = tier.status()
        assert (status.pending_writes, status.skipped_writes) == (1, 1)
        assert status.pending_bytes == 10_000
        gate.set()
        assert tier.flush(20)
        assert tier.save(disk.segment("cd"), wait=True)
        tier.reap()
        assert tier.status().pending_bytes == 0


def test_removing_includes_descendants_and_undoes_a_write():
    """Removed records disappear from list, disk and the next opening; their bytes are returned."""
    gate = threading.Event()
    gate.set()
    with disk.folder() as path:
        with disk.tier(path, failpoint=lambda _: _passed(gate)) as tier:
            for saved in (disk.segment("a1"), disk.segment("b2", "a1"), disk.segment("c3")):
                assert tier.save(saved, wait=True)
            sizes = sum(disk.file_of(path, name).stat().st_size for name in ("a1", "b2"))
            gate.clear()
            told: list[bool] = []
            assert tier.save(disk.segment("d4", "b2"), told.append)
            assert tier.remove(["a1"]) == sizes
            assert tier.load("b2") is None
            assert not tier.save(disk.segment("e5", "b2"))
            gate.set()
            assert tier.flush(20)
            assert told == [False]
            assert disk.ids(tier) == ["c3"]
        assert [file.stem for file in path.rglob("*.safetensors")] == ["c3"]
        with disk.tier(path) as tier:
            assert disk.ids(tier) == ["c3"]


def test_closing_writes_the_queue():
    """Closing writes the queue; afterwards saves are refused with the state STOPPED."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            for number in range(10):
                assert tier.save(disk.segment(f"{number:02x}"))
        assert not tier.save(disk.segment("ff"))
        assert tier.status().state is DiskState.STOPPED
        assert not tier.flush(1)
        with disk.tier(path) as again:
            assert len(again.records()) == 10


def test_names_that_could_leave_the_folder_are_refused():
    """Ids must be lower-case hex and a fingerprint a plain name."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            for name in ("", "A0", "../../x", "zz"):
                with pytest.raises(ValueError, match="record id"):
                    tier.save(Segment(name, "", 0, np.zeros(0, np.int32), {}, {}, "", "", False))
        for fingerprint in ("", "..", "a/b", "quarantine"):
            with pytest.raises(ValueError, match="model's folder"):
                disk.tier(path, fingerprint=fingerprint).__enter__()


def _passed(gate: threading.Event) -> None:
    assert gate.wait(20)
