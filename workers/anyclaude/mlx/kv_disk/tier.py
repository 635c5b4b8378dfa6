"""The disk tier's face: saves behind the caller's back, loads before its eyes.

Invariants:
  - nothing that `load` returns differs by a bit from what was saved under that name;
  - a failure of the disk costs what would have been kept, never a request: it is counted, named in
    `status`, and tried again later;
  - MLX is called by the calling thread only; the writing thread sees bytes.
`save`, `load`, `reap`, `flush` and `close` belong to the MLX thread, the rest to any.
"""

import errno
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import mlx.core as mx
from anyclaude.mlx.kv_disk.failpoints import Failpoint, pass_by
from anyclaude.mlx.kv_disk.folder import check_fingerprint, check_record_id
from anyclaude.mlx.kv_disk.jobs import Done, JobQueue, Marker, WriteJob
from anyclaude.mlx.kv_disk.ledger import Key, Stored
from anyclaude.mlx.kv_disk.reading import opened
from anyclaude.mlx.kv_disk.record import (
    DoubtfulRecordError,
    Header,
    OtherVersionError,
    tokens_to_text,
)
from anyclaude.mlx.kv_disk.scan import check_name
from anyclaude.mlx.kv_disk.shelf import Shelf
from anyclaude.mlx.kv_disk.values import (
    Bounds,
    DiskStatus,
    RecordInfo,
    Segment,
)
from anyclaude.mlx.kv_disk.writer import Writer

Loaded = tuple[dict[str, mx.array], dict[str, Any]]


class DiskTier:
    """The records of one model in a folder that all models share."""

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
        """Opens or creates the folder; never raises for what the disk refuses.

        Args:
            budget_bytes: for the whole folder, other models' records included.

        Raises:
            ValueError: `fingerprint` cannot name a folder.
        """
        check_fingerprint(fingerprint)
        self._fingerprint = fingerprint
        self._path = folder
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._shelf = Shelf(folder, fingerprint, budget_bytes, self._bounds, failpoint)
        self._queue = JobQueue(self._bounds.queue_bytes)
        self._writer = Writer(self._shelf, self._queue, self._bounds, clock)

    def records(self) -> list[RecordInfo]:
        """This model's complete records, parents before children."""
        with self._shelf.lock:
            return [stored.info() for stored in self._shelf.ledger.own_parents_first()]

    def holds(self, record_id: str) -> bool:
        """Whether the record is on disk or on its way there."""
        key = self._key(record_id)
        with self._shelf.lock:
            return key in self._writer.pending or key in self._shelf.ledger

    def save(
        self,
        segment: Segment,
        done: Done | None = None,
        *,
        wait: bool = False,
        replace: bool = False,
    ) -> bool:
        """Writes a segment behind; one that is stored already is touched, and pinned if asked.

        Args:
            done: called once if this returns True, or True was still possible: by the writing
                thread with whether the record is complete, or at once if it was stored already.
            wait: return when it is written, or after `Bounds.wait_seconds`.
            replace: write it although it is stored, in place of the old record, whose children
                stay. Until that is complete the old one stays on disk. A stored record of the
                same name with another parent or other tokens is always replaced.

        Returns:
            Whether it was accepted; with `wait`, whether it is on disk.

        Raises:
            ValueError: an id is not lower-case hex.
            TypeError: `meta` is not JSON.
        """
        self.reap()
        check_record_id(segment.record_id)
        if segment.parent_id:
            check_record_id(segment.parent_id)
        with self._shelf.lock:
            pending = self._writer.pending.get(self._key(segment.record_id))
            stored = self._shelf.ledger.get(self._key(segment.record_id))
            job = None
            if not replace and pending is not None and _is_same(pending.stored, segment):
                job = self._joined(pending, segment, done)
        if not replace and pending is None and stored is not None and _is_same(stored, segment):
            return self._save_again(segment, done)
        if job is None:
            job = self._queued(segment, done, self._bounds.wait_seconds if wait else 0.0)
        if job is None or not wait:
            return job is not None
        job.finished.wait(self._bounds.wait_seconds)
        return job.ok

    def load(self, record_id: str) -> Loaded | None:
        """The arrays, evaluated, and the meta of a record; None if it is missing or in doubt.

        A doubtful record goes to the quarantine and takes all below it out of use.
        """
        self.reap()
        key = self._key(record_id)
        with self._shelf.lock:
            job = self._writer.pending.get(key)
            if job is not None and job.segment is not None:
                return dict(job.segment.arrays), json.loads(job.meta)
            stored = self._shelf.ledger.get(key)
        return self._read(stored) if stored is not None else None

    def touch(self, record_ids: Iterable[str]) -> None:
        """Marks records as used now."""
        now = self._clock()

        def used(stored: Stored) -> None:
            stored.last_use = now

        self._mark(record_ids, used)

    def pin(self, record_ids: Iterable[str], pinned: bool) -> None:
        """Keeps records from eviction, or no longer."""

        def changed(stored: Stored) -> None:
            stored.pinned = pinned

        self._mark(record_ids, changed)

    def remove(self, record_ids: Iterable[str]) -> int:
        """Removes records and all below them, pinned or not; returns their bytes on disk.

        The files go behind the caller's back; a write under way is undone.
        """
        keys = [self._key(record_id) for record_id in record_ids]
        with self._shelf.lock:
            for key in keys:
                self._writer.pending.pop(key, None)
            gone = self._shelf.drop(keys)
        if gone:
            self._queue.poke()
        return sum(stored.nbytes for stored in gone)

    def models(self) -> dict[str, tuple[int, int]]:
        """Records and bytes by fingerprint, this model first."""
        with self._shelf.lock:
            return self._shelf.ledger.models()

    def remove_model(self, fingerprint: str) -> int:
        """Removes all records of another model; returns their bytes on disk."""
        with self._shelf.lock:
            own = [s.key for s in self._shelf.ledger.all() if s.key.fingerprint == fingerprint]
            gone = self._shelf.drop(own)
        if gone:
            self._queue.poke()
        return sum(stored.nbytes for stored in gone)

    def quarantine(self, record_id: str, reason: str) -> None:
        """Puts a record that is not what it should be aside, with all below it."""
        with self._shelf.lock:
            stored = self._shelf.ledger.get(self._key(record_id))
        if stored is not None:
            self._shelf.quarantine(stored, reason)
            self._queue.poke()

    def reap(self) -> None:
        """Frees the memory of arrays that were written; every `save` and `load` does, too."""
        self._queue.reap()

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all that was asked for was tried; False if it took too long."""
        marker = Marker()
        if not self._queue.put(marker):
            return False
        reached = marker.reached.wait(timeout)
        self.reap()
        return reached

    def status(self) -> DiskStatus:
        with self._shelf.lock:
            counts = self._shelf.counts
            return DiskStatus(
                folder=self._path,
                state=self._writer.state,
                records=self._shelf.ledger.own_count(),
                nbytes=self._shelf.held_bytes,
                budget_bytes=self._budget_bytes,
                pending_writes=self._queue.unfinished_writes,
                pending_bytes=self._queue.held_bytes,
                other_versions=self._shelf.other_versions,
                **vars(counts),
            )

    def close(self) -> None:
        """Writes what waits, as long as the bound allows, and lets the folder go."""
        if self._writer.is_running:
            self.flush(self._bounds.close_seconds)
        self._writer.end()
        self.reap()

    def _key(self, record_id: str) -> Key:
        return Key(self._fingerprint, record_id)

    def _mark(self, record_ids: Iterable[str], change: Callable[[Stored], None]) -> None:
        keys = [self._key(record_id) for record_id in record_ids]
        with self._shelf.lock:
            for key in keys:
                if key in self._writer.pending:
                    change(self._writer.pending[key].stored)
            self._shelf.mark(keys, change)
            unsettled = self._shelf.unsettled
        if unsettled:
            self._queue.poke()

    # --- Saving, on the caller's thread ---

    def _save_again(self, segment: Segment, done: Done | None) -> bool:
        self.touch([segment.record_id])
        if segment.pinned:
            self.pin([segment.record_id], True)
        if done is not None:
            done(True)
        return True

    def _joined(self, job: WriteJob, segment: Segment, done: Done | None) -> WriteJob:
        """The job that writes this record already; under the shelf's lock."""
        job.stored.pinned |= segment.pinned
        if done is not None:
            job.callbacks.append(done)
        return job

    def _queued(self, segment: Segment, done: Done | None, wait_seconds: float) -> WriteJob | None:
        if not self._expects_room(segment):
            return None
        job = WriteJob.of(segment, self._fingerprint, self._clock())
        if done is not None:
            job.callbacks.append(done)
        if not self._queue.reserve(job.nbytes, wait_seconds):
            self._writer.skip(f"{self._queue.held_bytes} bytes wait to be written")
            return None
        return job if self._writer.accept(job) else None

    def _expects_room(self, segment: Segment) -> bool:
        """Refuses at once what cannot be written now."""
        nbytes = sum(array.nbytes for array in segment.arrays.values())
        parent = self._key(segment.parent_id)
        with self._shelf.lock:
            if self._writer.is_backing_off():
                self._writer.skip(self._shelf.counts.last_error)
            elif nbytes > self._budget_bytes:
                self._writer.skip(
                    f"{nbytes} bytes are more than the budget of {self._budget_bytes}"
                )
            elif segment.parent_id and not self.holds(parent.record_id):
                self._writer.skip(f"its parent {parent.record_id} is not on disk")
            else:
                return True
        return False

    # --- Loading, on the caller's thread ---

    def _read(self, stored: Stored) -> Loaded | None:
        path = self._shelf.path_of(stored.key)
        try:
            with opened(path) as record:
                _check_facts(record.header, stored)
                loaded = record.arrays(), json.loads(record.header.meta)
        except (DoubtfulRecordError, OtherVersionError) as error:
            self._shelf.quarantine(stored, str(error))
            self._queue.poke()
            return None
        except OSError as error:
            self._not_read(stored, error)
            return None
        with self._shelf.lock:
            self._shelf.counts.loaded += 1
        self.touch([stored.key.record_id])
        return loaded

    def _not_read(self, stored: Stored, error: OSError) -> None:
        """A bad medium is the record's fault; too many open files is not."""
        with self._shelf.lock:
            evicted_meanwhile = self._shelf.ledger.get(stored.key) is not stored
        if evicted_meanwhile:
            return
        if error.errno in (errno.ENOENT, errno.EIO, errno.ELOOP, errno.EISDIR):
            self._shelf.quarantine(stored, str(error))
            self._queue.poke()
        else:
            self._shelf.note(str(error))


def _is_same(stored: Stored, segment: Segment) -> bool:
    """Whether a record of this name is of the same tokens in the same place."""
    return (
        stored.parent_id == segment.parent_id
        and stored.start == segment.start
        and bool(np.array_equal(stored.token_ids, segment.token_ids))
    )


def _check_facts(header: Header, stored: Stored) -> None:
    """Raises DoubtfulRecordError if the file is not the record that was announced."""
    check_name(header, stored.key)
    announced = stored.parent_id, stored.start, tokens_to_text(stored.token_ids)
    if (header.parent_id, header.start, header.tokens) != announced:
        raise DoubtfulRecordError("it holds another segment than the index says")
