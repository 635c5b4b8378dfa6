"""Small segments and temporary tiers for the tests of the disk tier."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from anyclaude.mlx.kv_disk import Bounds, DiskTier, Segment, pass_by
from anyclaude.mlx.kv_disk.writer import Done
from anyclaude.mlx.kv_disk.writing import Failpoint

FINGERPRINT = "f00d"
# In memory where there is such a place: the tests wait for thousands of fsyncs.
_PARENT = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
BUDGET_BYTES = 16 * 1024 * 1024
BOUNDS = Bounds(min_free_bytes=0, retry_seconds=30.0, close_seconds=20.0)


class Tier(DiskTier):
    """A tier whose `save` can wait and then returns whether the record is on disk."""

    def save(self, segment: Segment, done: Done | None = None, *, wait: bool = False) -> bool:
        if not wait:
            return super().save(segment, done)
        results: list[bool] = []
        return super().save(segment, results.append) and self.flush(20) and results == [True]


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=_PARENT, prefix="kv-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def tier(
    path: Path,
    *,
    fingerprint: str = FINGERPRINT,
    budget_bytes: int = BUDGET_BYTES,
    bounds: Bounds = BOUNDS,
    clock: Clock | None = None,
    failpoint: Failpoint = pass_by,
) -> Iterator[Tier]:
    opened = Tier(
        path / "kv",
        fingerprint,
        budget_bytes,
        clock=clock or Clock(),
        bounds=bounds,
        failpoint=failpoint,
    )
    try:
        yield opened
    finally:
        opened.close()


def segment(
    record_id: str,
    parent_id: str = "",
    *,
    start: int = 0,
    tokens: int = 8,
    floats: int = 64,
    pinned: bool = False,
    seed: int | None = None,
) -> Segment:
    """A segment whose content is derived from its name, or from `seed`."""
    random = np.random.default_rng(int(record_id, 16) if seed is None else seed)
    arrays = {
        "0.keys": mx.array(random.standard_normal((2, floats), dtype=np.float32)),
        "0.values": mx.array(random.integers(0, 2**16, floats, dtype=np.uint16)).view(mx.bfloat16),
    }
    mx.eval(*arrays.values())
    ids = random.integers(0, 50_000, tokens, dtype=np.int32)
    meta = {"layer": record_id}
    return Segment(record_id, parent_id, start, ids, arrays, meta, "turn", "session", pinned)


def same(loaded: tuple[dict[str, mx.array], dict[str, Any]] | None, saved: Segment) -> bool:
    """Whether the loaded record is bit for bit the one that was saved."""
    if loaded is None:
        return False
    arrays, meta = loaded
    return (
        meta == saved.meta
        and arrays.keys() == saved.arrays.keys()
        and all(same_bits(arrays[name], saved.arrays[name]) for name in arrays)
    )


def same_bits(a: mx.array, b: mx.array) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return bits(a) == bits(b)


def bits(array: mx.array) -> bytes:
    if not array.size:
        return b""
    flat = mx.view(mx.reshape(array, (-1,), stream=mx.cpu), mx.uint8, stream=mx.cpu)
    return bytes(np.array(flat))


def file_of(path: Path, record_id: str) -> Path:
    return path / "kv" / FINGERPRINT / record_id[:2] / f"{record_id}.safetensors"


def ids(opened: DiskTier) -> list[str]:
    return [record.record_id for record in opened.records()]


def bytes_on_disk(path: Path) -> int:
    """The tier's bytes as the file system counts them, without the lock file."""
    files = (file for file in (path / "kv").rglob("*") if file.is_file() and file.name != "lock")
    return sum(file.stat().st_size for file in files)


def before() -> dict[str, Segment]:
    """The state before the crash: a root with a child, and a root used least recently."""
    return {
        "0d": segment("0d", floats=9000),
        "a1": segment("a1"),
        "b2": segment("b2", "a1", start=8),
    }


def after(scenario: str) -> dict[str, Segment]:
    """The state after it: a record added ("add"), replaced, or added with an eviction ("evict")."""
    state = before()
    if scenario == "replace":
        return state | {"a1": segment("a1", seed=99)}
    new = {"c3": segment("c3", "b2", start=16, floats=9000)}
    if scenario == "evict":
        del state["0d"]
    return state | new


def budget_of(scenario: str) -> int:
    """A budget for the eviction: enough for the old records, not for one more."""
    return {"evict": 150_000, "load": 100_000}.get(scenario, BUDGET_BYTES)


def act(opened: DiskTier, scenario: str) -> None:
    new = after(scenario)
    if scenario == "replace":
        opened.save(new["a1"])
    else:
        opened.save(new["c3"])
