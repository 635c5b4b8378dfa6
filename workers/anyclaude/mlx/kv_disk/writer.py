"""Queues segments and writes them on a thread of its own; decides what a disk error means.

Invariants:
  - a job is pending from the moment it is accepted until its record is stored, replaced or refused;
  - a job is written even if a later one for the same record is queued, unless the record was
    removed: jobs that were queued between the two name it as their parent;
  - after a failure nothing is written for a while; then the owner of the segments is asked to queue
    again what was refused or failed meanwhile, until all of it is stored;
  - after an unexpected error nothing is ever written again: the tier is STOPPED, and everything
    that waits is notified. The catalog's lock guards `pending` and
    `state`. MLX frees memory on its own thread only, so the arrays of a finished job stay until
    `reap`.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from anyclaude.mlx.kv_disk.catalog import BudgetError, Catalog, VolumeFullError
from anyclaude.mlx.kv_disk.folder import SharedFolderError
from anyclaude.mlx.kv_disk.record import RawArray, encode
from anyclaude.mlx.kv_disk.values import Bounds, DiskState, Key, RecordInfo, Segment
from anyclaude.mlx.kv_disk.writing import raw_arrays

log = structlog.get_logger(__name__)

# Between two looks at a disk that failed.
_MIN_IDLE_SECONDS: Final = 1.0

Done = Callable[[bool], None]


@dataclass(eq=False)
class WriteJob:
    """One segment to write; `segment` and `arrays` are emptied by `release`."""

    info: RecordInfo
    # JSON text.
    meta: str
    segment: Segment | None
    arrays: list[RawArray]
    nbytes: int
    done: Done | None = None
    # A later job writes the same record.
    superseded: bool = False

    @classmethod
    def of(
        cls, segment: Segment, fingerprint: str, now: float, done: Done | None = None
    ) -> "WriteJob":
        """MLX thread only. Raises TypeError or ValueError if `meta` is not JSON."""
        info = RecordInfo(
            fingerprint=fingerprint,
            record_id=segment.record_id,
            parent_id=segment.parent_id,
            start=segment.start,
            token_ids=segment.token_ids,
            kind=segment.kind,
            session_id=segment.session_id,
            created=now,
            last_use=now,
            pinned=segment.pinned,
        )
        meta = json.dumps(dict(segment.meta))
        arrays = raw_arrays(segment.arrays)
        nbytes = sum(len(array.data) for array in arrays)
        return cls(info, meta, segment, arrays, nbytes, done)

    def encode(self) -> list[bytes | memoryview]:
        """The bytes of the record, in parts; any thread may checksum them."""
        return encode(self.info, self.meta, self.arrays)

    def finish(self, ok: bool) -> None:
        if self.done is not None:
            self.done(ok)

    def release(self) -> None:
        self.segment = None
        self.arrays = []


class JobQueue:
    """Any thread puts jobs, or events to be set once all earlier items are done; one reads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        self._items: deque[WriteJob | threading.Event] = deque()
        self._finished: list[WriteJob] = []
        self._unfinished_bytes = 0
        self._closed = False
        self.unfinished_writes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of arrays that are not released yet."""
        with self._changed:
            return self._unfinished_bytes + sum(job.nbytes for job in self._finished)

    def reserve(self, nbytes: int) -> bool:
        """Claims bytes for a job; False if too many wait already. A large job may wait alone."""
        with self._changed:
            if self._unfinished_bytes and self._unfinished_bytes + nbytes > self._limit_bytes:
                return False
            self.unfinished_writes += 1
            self._unfinished_bytes += nbytes
            return True

    def put(self, item: WriteJob | threading.Event) -> bool:
        """False if the queue is closed."""
        with self._changed:
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def poke(self) -> None:
        """Wakes the reading thread if the queue is empty."""
        with self._changed:
            if not self._items:
                self.put(threading.Event())

    @property
    def is_empty(self) -> bool:
        with self._changed:
            return not self._items

    def items(self, idle_seconds: float) -> Iterator[WriteJob | threading.Event]:
        """The items in order, until the queue is closed; an event whenever it was empty so long."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed, idle_seconds)
                if self._closed and not self._items:
                    return
                item = self._items.popleft() if self._items else threading.Event()
            yield item
            # Keep no job alive while waiting for the next.
            del item

    def finished(self, job: WriteJob) -> None:
        with self._changed:
            self.unfinished_writes -= 1
            self._unfinished_bytes -= job.nbytes
            self._finished.append(job)

    def reap(self) -> None:
        """Releases the arrays of finished jobs. MLX thread only."""
        with self._changed:
            done, self._finished = self._finished, []
        for job in done:
            job.release()

    def close(self) -> list[WriteJob | threading.Event]:
        """Ends `items` at once; returns the items that were not read."""
        with self._changed:
            left = list(self._items)
            self._items.clear()
            self._closed = True
            self._changed.notify_all()
            return left


class Writer:
    """Writes the jobs of one queue into one catalog."""

    def __init__(
        self, catalog: Catalog, queue: JobQueue, bounds: Bounds, clock: Callable[[], float]
    ) -> None:
        """Opens the catalog and starts the thread; never raises for a disk error."""
        self._catalog = catalog
        self._queue = queue
        self._bounds = bounds
        self._clock = clock
        self.pending: dict[Key, WriteJob] = {}
        self.state = DiskState.SERVING
        # Called on the writing thread when segments that were not written may be queued again.
        self.on_writable: Callable[[], object] = lambda: None
        # Segments were refused or failed for a reason that may pass.
        self._has_missed = False
        # Until then nothing is written, or nobody is asked for missed segments.
        self._retry_at = self._ask_at = 0.0
        try:
            catalog.open()
        except (SharedFolderError, OSError) as error:
            self._set_failed(error)
        self._thread = threading.Thread(target=self._run, name="kv-disk", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def accept(self, job: WriteJob) -> bool:
        """Queues a job whose bytes are reserved; returns False once the thread has ended."""
        with self._catalog.lock:
            if not self._queue.put(job):
                self._queue.finished(job)
                return False
            earlier = self.pending.get(job.info.key)
            if earlier is not None:
                earlier.superseded = True
            self.pending[job.info.key] = job
        return True

    def skip(self, reason: str, *, may_pass: bool = False) -> None:
        """Counts a segment that is not written, and why; one that `may_pass` is asked for again."""
        with self._catalog.lock:
            self._has_missed = self._has_missed or may_pass
            self._catalog.counts.skipped_writes += 1
            self._catalog.counts.last_error = reason

    def is_backing_off(self) -> bool:
        if self.state is DiskState.SERVING:
            return False
        return self.state is DiskState.STOPPED or self._is_ahead(self._retry_at)

    def _is_ahead(self, moment: float) -> bool:
        # Bounded on both sides, so that a clock set back does not stop writing for long.
        return 0 < moment - self._clock() <= self._bounds.retry_seconds

    def end(self) -> None:
        """Accepts no more jobs, fails those that wait, and unlocks the folder."""
        self._stop()
        self._thread.join(self._bounds.close_seconds)
        if not self._thread.is_alive():
            self._catalog.close()

    def _run(self) -> None:
        try:
            for item in self._queue.items(max(self._bounds.retry_seconds, _MIN_IDLE_SECONDS)):
                if isinstance(item, WriteJob):
                    self._write(item)
                if self._catalog.attached and not self._catalog.is_settled:
                    self._catalog.settle()
                if self._queue.is_empty:
                    self._ask_again()
                if isinstance(item, threading.Event):
                    item.set()
        except BaseException as error:  # The worker continues without the disk.
            log.exception("the disk tier's writer ended")
            self._catalog.note(f"the writer ended: {error!r}")
            self._stop()

    def _write(self, job: WriteJob) -> None:
        ok = False
        try:
            if self._is_wanted(job):
                ok = self._try(job)
        finally:
            with self._catalog.lock:
                self._end_wait(job)
            self._queue.finished(job)
            job.finish(ok)

    def _ask_again(self) -> None:
        """Has missed segments queued again once the disk may take them."""
        with self._catalog.lock:
            if self.is_backing_off() or self._is_ahead(self._ask_at):
                return
        try:
            self._prepare(0)
        except (SharedFolderError, VolumeFullError, OSError) as error:
            self._set_failed(error)
            return
        with self._catalog.lock:
            missed, self._has_missed = self._has_missed, False
            if not missed:
                self.state = DiskState.SERVING
            elif self.state is not DiskState.SERVING:
                # What is queued now shows whether the disk serves again.
                self._ask_at = self._clock() + self._bounds.retry_seconds
        if missed:
            self.on_writable()

    def _prepare(self, nbytes: int) -> None:
        """Opens the folder if needed, also anew if it was removed; checks the volume's free space.

        Raises:
            SharedFolderError, VolumeFullError, OSError: nothing can be written now.
        """
        if self._catalog.attached and not self._catalog.is_in_place():
            log.warning("the folder of the caches was removed; it is made anew")
            self._catalog.close()
            self._has_missed = True
        if not self._catalog.attached:
            self._catalog.open()
        self._catalog.check_free(nbytes)

    def _try(self, job: WriteJob) -> bool:
        with self._catalog.lock:
            if self.is_backing_off():
                self.skip(self._catalog.counts.last_error, may_pass=True)
                return False
        try:
            # Before the bytes are encoded, which takes time for a large segment.
            self._prepare(job.nbytes)
            ok = self._catalog.store(job.encode(), job.info, lambda: self._claim(job))
        except (SharedFolderError, VolumeFullError) as error:
            self._set_failed(error)
            self.skip(str(error), may_pass=True)
        except BudgetError as error:
            self.skip(str(error))
        except OSError as error:
            self._set_failed(error)
            with self._catalog.lock:
                self._catalog.counts.failed_writes += 1
                self._has_missed = True
        else:
            self.state = DiskState.SERVING
            return ok and not job.superseded
        return False

    def _set_failed(self, error: Exception) -> None:
        """Writes nothing for a while."""
        if self.state is DiskState.SERVING:
            log.warning("the disk tier is off for now", error=str(error))
        shared = isinstance(error, SharedFolderError)
        with self._catalog.lock:
            self.state = DiskState.SHARED if shared else DiskState.FAILING
            self._retry_at = self._ask_at = self._clock() + self._bounds.retry_seconds
            self._catalog.counts.last_error = str(error)
            if isinstance(error, VolumeFullError):
                # The next job checks the free space again, which costs almost nothing.
                self._retry_at = 0.0

    def _is_wanted(self, job: WriteJob) -> bool:
        """False once its record was removed."""
        with self._catalog.lock:
            pending = self.pending.get(job.info.key)
            return pending is job or (job.superseded and pending is not None)

    def _claim(self, job: WriteJob) -> bool:
        """Called under the catalog's lock: from now on the record is stored, not pending."""
        wanted = self._is_wanted(job)
        self._end_wait(job)
        return wanted

    def _end_wait(self, job: WriteJob) -> None:
        """Called under the catalog's lock; a later job for the same record stays pending."""
        if self.pending.get(job.info.key) is job:
            del self.pending[job.info.key]

    def _stop(self) -> None:
        with self._catalog.lock:
            self.state = DiskState.STOPPED
            left = self._queue.close()
            self.pending.clear()
        for item in left:
            if isinstance(item, WriteJob):
                self._queue.finished(item)
                item.finish(False)
            else:
                item.set()
