"""The public interface of the disk tier. Saving is asynchronous, loading blocks.

Invariants:
  - `load` returns the arrays bit by bit as they were saved under that name;
  - an error of the disk costs records, never a request: it is counted, shown in `status`, and
    writing is tried again later;
  - MLX is called on the calling thread only; the writing thread handles bytes.
Call `save`, `load`, `reap`, `flush` and `close` on the MLX thread, the rest on any thread.
"""

import errno
import json
import threading
import time
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

import mlx.core as mx
from anyclaude.mlx.kv_disk.catalog import Catalog
from anyclaude.mlx.kv_disk.folder import check_fingerprint, check_name, check_record_id
from anyclaude.mlx.kv_disk.reading import opened
from anyclaude.mlx.kv_disk.record import CorruptRecordError, UnsupportedRecordError
from anyclaude.mlx.kv_disk.values import Bounds, DiskStatus, Key, RecordInfo, Segment
from anyclaude.mlx.kv_disk.writer import Done, JobQueue, WriteJob, Writer
from anyclaude.mlx.kv_disk.writing import Failpoint, pass_by

Loaded = tuple[dict[str, mx.array], dict[str, Any]]


class DiskTier:
    """The records of one model, in a folder that all models share."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        budget_bytes: int,
        *,
        clock: Callable[[], float] = time.time,
        bounds: Bounds | None = None,
        failpoint: Failpoint = pass_by,
    ) -> None:
        """Opens or creates the folder; never raises for an error of the disk.

        The budget is for the whole folder, other models' records included.

        Raises:
            ValueError: `fingerprint` cannot name a folder.
        """
        check_fingerprint(fingerprint)
        self._fingerprint = fingerprint
        self._path = folder
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._catalog = Catalog(folder, fingerprint, budget_bytes, self._bounds, failpoint)
        self._queue = JobQueue(self._bounds.queue_bytes)
        self._writer = Writer(self._catalog, self._queue, self._bounds, clock)

    def on_writable(self, ask_again: Callable[[], object]) -> None:
        """Has `ask_again` called, on the writing thread, when refused segments may be saved again.

        A segment is refused while the disk is short of space, fails or has too much to write.
        """
        self._writer.on_writable = ask_again

    def records(self) -> list[RecordInfo]:
        """This model's complete records, parents before children."""
        with self._catalog.lock:
            return [copy(info) for info in self._catalog.ledger.of_model(self._fingerprint)]

    def holds(self, record_id: str) -> bool:
        """Whether the record is on disk or waits to be written."""
        key = self._key(record_id)
        with self._catalog.lock:
            return key in self._writer.pending or key in self._catalog.ledger

    @property
    def evicted(self) -> int:
        """How many records were evicted for the budget since the start."""
        with self._catalog.lock:
            return self._catalog.counts.evicted

    def save(self, segment: Segment, done: Done | None = None) -> bool:
        """Queues a segment to be written, in place of a record of the same name.

        The old record stays on disk until the new one is complete, and its children stay. Returns
        whether the segment was accepted. Then `done` is called once on the writing thread: with
        True if this record is complete and no later one was queued.

        Raises:
            ValueError: an id is not lower-case hex.
            TypeError: `meta` is not JSON.
        """
        self.reap()
        check_record_id(segment.record_id)
        if segment.parent_id:
            check_record_id(segment.parent_id)
        if self._is_backing_off():
            self._writer.skip(self.status().last_error or "writing fails now", may_pass=True)
            return False
        refusal = self._refusal(segment)
        if refusal:
            self._writer.skip(refusal)
            return False
        job = WriteJob.of(segment, self._fingerprint, self._clock(), done)
        if not self._queue.reserve(job.nbytes):
            waiting = self._queue.used_bytes
            self._writer.skip(f"{waiting} bytes wait to be written", may_pass=True)
            return False
        return self._writer.accept(job)

    def load(self, record_id: str) -> Loaded | None:
        """The arrays, evaluated, and the meta of a record; None if it is missing or corrupt.

        A corrupt record is quarantined, and all that build on it are removed.
        """
        self.reap()
        key = self._key(record_id)
        with self._catalog.lock:
            job = self._writer.pending.get(key)
            if job is not None and job.segment is not None:
                return dict(job.segment.arrays), json.loads(job.meta)
            stored = self._catalog.ledger.get(key)
        return self._read(stored) if stored is not None else None

    def touch(self, record_ids: Iterable[str]) -> None:
        """Marks records as used now."""
        now = self._clock()

        def used(info: RecordInfo) -> None:
            info.last_use = now

        self._mark(record_ids, used)

    def pin(self, record_ids: Iterable[str], pinned: bool) -> None:
        """Pins or unpins records: pinned ones are exempt from eviction."""

        def changed(info: RecordInfo) -> None:
            info.pinned = pinned

        self._mark(record_ids, changed)

    def remove(self, record_ids: Iterable[str]) -> int:
        """Removes records and all that build on them, pinned or not; returns their bytes on disk.

        The writing thread deletes the files, and undoes a write in progress.
        """
        keys = [self._key(record_id) for record_id in record_ids]
        with self._catalog.lock:
            for key in keys:
                self._writer.pending.pop(key, None)
            return self._drop(keys)

    def models(self) -> dict[str, tuple[int, int]]:
        """Records and bytes by fingerprint, this model first."""
        with self._catalog.lock:
            return self._catalog.ledger.models()

    def remove_model(self, fingerprint: str) -> int:
        """Removes all records of another model; returns their bytes on disk."""
        with self._catalog.lock:
            return self._drop([info.key for info in self._catalog.ledger.of_model(fingerprint)])

    def quarantine(self, record_id: str, reason: str) -> None:
        """Quarantines a record whose content is wrong, and drops all that build on it."""
        with self._catalog.lock:
            stored = self._catalog.ledger.get(self._key(record_id))
        if stored is not None:
            self._catalog.quarantine(stored, reason)
            self._queue.poke()

    def reap(self) -> None:
        """Frees the memory of arrays that were written; every `save` and `load` also does."""
        self._queue.reap()

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until everything queued so far was tried; False after the timeout."""
        reached = threading.Event()
        if not self._queue.put(reached):
            return False
        ok = reached.wait(timeout)
        self.reap()
        return ok

    def status(self) -> DiskStatus:
        with self._catalog.lock:
            return DiskStatus(
                folder=self._path,
                state=self._writer.state,
                records=self._catalog.ledger.models()[self._fingerprint][0],
                nbytes=self._catalog.used_bytes,
                budget_bytes=self._budget_bytes,
                pending_writes=self._queue.unfinished_writes,
                pending_bytes=self._queue.used_bytes,
                other_versions=self._catalog.unsupported,
                **vars(self._catalog.counts),
            )

    def close(self) -> None:
        """Writes what is queued, within the time limit, and unlocks the folder."""
        if self._writer.is_running:
            self.flush(self._bounds.close_seconds)
        self._writer.end()
        self.reap()

    def _key(self, record_id: str) -> Key:
        return Key(self._fingerprint, record_id)

    def _mark(self, record_ids: Iterable[str], change: Callable[[RecordInfo], None]) -> None:
        keys = [self._key(record_id) for record_id in record_ids]
        with self._catalog.lock:
            for key in keys:
                if key in self._writer.pending:
                    change(self._writer.pending[key].info)
            self._catalog.mark(keys, change)
        self._queue.poke()

    def _drop(self, keys: list[Key]) -> int:
        dropped = self._catalog.drop(keys)
        self._queue.poke()
        return sum(info.nbytes for info in dropped)

    def _is_backing_off(self) -> bool:
        with self._catalog.lock:
            return self._writer.is_backing_off()

    def _refusal(self, segment: Segment) -> str:
        """Why the segment cannot be written; empty if nothing prevents it so far."""
        nbytes = sum(array.nbytes for array in segment.arrays.values())
        with self._catalog.lock:
            if nbytes > self._budget_bytes:
                return f"{nbytes} bytes are more than the budget of {self._budget_bytes}"
            if segment.parent_id and not self.holds(segment.parent_id):
                return f"its parent {segment.parent_id} is not on disk"
            return ""

    def _read(self, stored: RecordInfo) -> Loaded | None:
        try:
            with opened(self._catalog.path_of(stored.key)) as record:
                _check_same(record.head.info(), stored)
                loaded = record.arrays(), json.loads(record.head.meta)
        except (CorruptRecordError, UnsupportedRecordError) as error:
            self._catalog.quarantine(stored, str(error))
            self._queue.poke()
            return None
        except OSError as error:
            self._not_read(stored, error)
            return None
        with self._catalog.lock:
            self._catalog.counts.loaded += 1
        self.touch([stored.record_id])
        return loaded

    def _not_read(self, stored: RecordInfo, error: OSError) -> None:
        """Whether the error is the record's: a bad medium is, too many open files is not."""
        with self._catalog.lock:
            evicted_meanwhile = self._catalog.ledger.get(stored.key) is not stored
        if evicted_meanwhile:
            return
        if error.errno in (errno.ENOENT, errno.EIO, errno.ELOOP, errno.EISDIR):
            self._catalog.quarantine(stored, str(error))
            self._queue.poke()
        else:
            self._catalog.note(str(error))


def _check_same(read: RecordInfo, stored: RecordInfo) -> None:
    """Raises CorruptRecordError if the file is not the record that was found when opening."""
    check_name(read, stored.key)
    same = (read.parent_id, read.start) == (stored.parent_id, stored.start)
    if not same or not np.array_equal(read.token_ids, stored.token_ids):
        raise CorruptRecordError("it has another segment than when it was found")
