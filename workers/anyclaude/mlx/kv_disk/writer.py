"""The writing thread: takes segments in order, and draws the consequences of what the disk says.

Invariants:
  - a job is pending from the moment it is accepted until its record is stored, replaced or refused;
  - a job that a later one for the same record supersedes is written all the same, unless the record
    was removed: jobs that were queued between the two name it as their parent;
  - after a failure nothing is tried for a while, and after an unexpected error never again: then
    the tier is STOPPED, and whoever waits is told.
What is pending, and the state, are guarded by the shelf's lock.
"""

import threading
from collections.abc import Callable

import structlog

from anyclaude.mlx.kv_disk.folder import SharedFolderError
from anyclaude.mlx.kv_disk.jobs import JobQueue, Marker, WriteJob
from anyclaude.mlx.kv_disk.ledger import Key
from anyclaude.mlx.kv_disk.shelf import NoRoomError, Shelf, VolumeFullError
from anyclaude.mlx.kv_disk.values import Bounds, DiskState

log = structlog.get_logger(__name__)


class Writer:
    """Writes to one shelf what comes through one queue."""

    def __init__(
        self, shelf: Shelf, queue: JobQueue, bounds: Bounds, clock: Callable[[], float]
    ) -> None:
        """Opens the shelf and starts the thread; never raises for what the disk refuses."""
        self._shelf = shelf
        self._queue = queue
        self._bounds = bounds
        self._clock = clock
        self.pending: dict[Key, WriteJob] = {}
        self.state = DiskState.SERVING
        self._retry_at = 0.0
        self._open()
        self._thread = threading.Thread(target=self._run, name="kv-disk", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def accept(self, job: WriteJob) -> bool:
        """Takes a job whose room is reserved; False once the thread has ended."""
        with self._shelf.lock:
            if not self._queue.put(job):
                self._queue.finished(job)
                return False
            earlier = self.pending.get(job.stored.key)
            if earlier is not None:
                earlier.superseded = True
            self.pending[job.stored.key] = job
        return True

    def skip(self, reason: str) -> None:
        """Counts a segment that is not written, and why."""
        with self._shelf.lock:
            self._shelf.counts.skipped_writes += 1
            self._shelf.counts.last_error = reason

    def is_backing_off(self) -> bool:
        if self.state is DiskState.SERVING:
            return False
        # Bounded from both sides, so that a clock set back does not stop writing for long.
        until = self._retry_at - self._clock()
        return self.state is DiskState.STOPPED or 0 < until <= self._bounds.retry_seconds

    def end(self) -> None:
        """Takes no more work, says so to whoever waits for some, and lets the folder go."""
        self._end()
        self._thread.join(self._bounds.close_seconds)
        if not self._thread.is_alive():
            self._shelf.close()

    def _run(self) -> None:
        try:
            for item in self._queue.items():
                if isinstance(item, WriteJob):
                    self._write(item)
                if self._shelf.attached and self._shelf.unsettled:
                    self._shelf.settle()
                if isinstance(item, Marker):
                    item.reached.set()
        except BaseException as error:  # Whatever it was: serving goes on without us.
            log.exception("the disk tier's writer ended")
            self._shelf.note(f"the writer ended: {error!r}")
            self._end()

    def _write(self, job: WriteJob) -> None:
        ok = False
        try:
            if self._is_wanted(job):
                ok = self._try(job)
        finally:
            with self._shelf.lock:
                self._settle(job)
            self._queue.finished(job)
            job.finish(ok)

    def _try(self, job: WriteJob) -> bool:
        """Writes a job and draws the consequences of what the disk says to it."""
        with self._shelf.lock:
            if self.is_backing_off():
                self.skip(self._shelf.counts.last_error)
                return False
        try:
            if not self._shelf.attached:
                self._shelf.open()
            ok = self._shelf.store(job.prepare(), job.stored, lambda: self._claim(job))
        except SharedFolderError as error:
            self._refused(DiskState.SHARED, error)
        except VolumeFullError as error:
            self._refused(DiskState.FAILING, error)
            self._retry_at = 0.0
        except NoRoomError as error:
            self.skip(str(error))
        except OSError as error:
            self._refused(DiskState.FAILING, error, failed=True)
        else:
            self.state = DiskState.SERVING
            return ok and not job.superseded
        return False

    def _refused(self, state: DiskState, error: Exception, *, failed: bool = False) -> None:
        log.warning("cache record not written", error=str(error))
        with self._shelf.lock:
            self.state = state
            self._retry_at = self._clock() + self._bounds.retry_seconds
            self._shelf.counts.last_error = str(error)
            if failed:
                self._shelf.counts.failed_writes += 1
            else:
                self._shelf.counts.skipped_writes += 1

    def _is_wanted(self, job: WriteJob) -> bool:
        """False once its record was removed."""
        with self._shelf.lock:
            pending = self.pending.get(job.stored.key)
            return pending is job or (job.superseded and pending is not None)

    def _claim(self, job: WriteJob) -> bool:
        """Under the shelf's lock: from here on it is stored, not pending."""
        wanted = self._is_wanted(job)
        self._settle(job)
        return wanted

    def _settle(self, job: WriteJob) -> None:
        """Ends the wait for a job, under the shelf's lock; its successor stays pending."""
        if self.pending.get(job.stored.key) is job:
            del self.pending[job.stored.key]

    def _open(self) -> None:
        try:
            self._shelf.open()
        except SharedFolderError as error:
            self._opened_without(DiskState.SHARED, error)
        except OSError as error:
            self._opened_without(DiskState.FAILING, error)

    def _opened_without(self, state: DiskState, error: Exception) -> None:
        log.warning("the disk tier is off for now", state=state.value, error=str(error))
        self.state = state
        self._retry_at = self._clock() + self._bounds.retry_seconds
        self._shelf.note(str(error))

    def _end(self) -> None:
        """Takes no more work, and says so to whoever waits for some."""
        with self._shelf.lock:
            self.state = DiskState.STOPPED
            left = self._queue.close()
            self.pending.clear()
        for item in left:
            if isinstance(item, Marker):
                item.reached.set()
            else:
                self._queue.finished(item)
                item.finish(False)
