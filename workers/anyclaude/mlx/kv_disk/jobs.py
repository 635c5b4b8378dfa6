"""The queue of segments that wait to be written, bounded by bytes.

MLX frees memory on its own thread only, so the arrays of a finished job stay until `reap`.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from anyclaude.mlx.kv_disk.record import RawArray, encode
from anyclaude.mlx.kv_disk.values import RecordInfo, Segment
from anyclaude.mlx.kv_disk.writing import raw_arrays

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
    callbacks: list[Done] = field(default_factory=list)
    # A later job writes the same record.
    superseded: bool = False
    finished: threading.Event = field(default_factory=threading.Event)
    ok: bool = False

    @classmethod
    def of(cls, segment: Segment, fingerprint: str, now: float) -> "WriteJob":
        """MLX thread only. Raises TypeError or ValueError if `meta` is not JSON."""
        info = RecordInfo(
            fingerprint=fingerprint,
            record_id=segment.record_id,
            parent_id=segment.parent_id,
            start=segment.start,
            token_ids=segment.token_ids.copy(),
            kind=segment.kind,
            session_id=segment.session_id,
            created=now,
            last_use=now,
            pinned=segment.pinned,
        )
        meta = json.dumps(dict(segment.meta))
        arrays = raw_arrays(segment.arrays)
        return cls(info, meta, segment, arrays, sum(len(array.data) for array in arrays))

    def encode(self) -> list[bytes | memoryview]:
        """The bytes of the record, in parts; any thread may checksum them."""
        return encode(self.info, self.meta, self.arrays)

    def finish(self, ok: bool) -> None:
        self.ok = ok
        self.finished.set()
        for done in self.callbacks:
            done(ok)

    def release(self) -> None:
        self.segment = None
        self.arrays = []


class JobQueue:
    """Many threads put jobs, and events to set when all before them is done; one thread takes."""

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

    def reserve(self, nbytes: int, wait_seconds: float) -> bool:
        """Claims bytes for a job; False if they are not free in time. A large job may go alone."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(nbytes), wait_seconds):
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
        """Wakes the taker, if nothing else will."""
        with self._changed:
            if not self._items:
                self.put(threading.Event())

    def items(self) -> Iterator[WriteJob | threading.Event]:
        """The items in order, until the queue is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed)
                if not self._items:
                    return
                item = self._items.popleft()
            yield item
            # Keeps no job alive while it waits.
            del item

    def finished(self, job: WriteJob) -> None:
        with self._changed:
            self.unfinished_writes -= 1
            self._unfinished_bytes -= job.nbytes
            self._finished.append(job)
            self._changed.notify_all()

    def reap(self) -> None:
        """Releases the arrays of finished jobs. MLX thread only."""
        with self._changed:
            done, self._finished = self._finished, []
        for job in done:
            job.release()

    def close(self) -> list[WriteJob | threading.Event]:
        """Ends `items` at once; returns the items that nobody will take."""
        with self._changed:
            left = list(self._items)
            self._items.clear()
            self._closed = True
            self._changed.notify_all()
            return left

    def _fits(self, nbytes: int) -> bool:
        alone = self._unfinished_bytes == 0
        return alone or self._unfinished_bytes + nbytes <= self._limit_bytes
