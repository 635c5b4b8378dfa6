"""Segments on their way to disk, in order, within a bound of bytes.

The arrays of a job are released by the thread that gave them (MLX frees on its own thread), so a
finished job waits for `reap`.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from anyclaude.mlx.kv_disk.arrays import raw_arrays
from anyclaude.mlx.kv_disk.ledger import Key, Stored
from anyclaude.mlx.kv_disk.record import Header, RawArray, describe, tokens_to_text
from anyclaude.mlx.kv_disk.values import Segment
from anyclaude.mlx.kv_disk.writing import PreparedRecord

Done = Callable[[bool], None]


@dataclass(eq=False)
class WriteJob:
    """One segment to write. `stored` lacks its file's size and time until it is written."""

    stored: Stored
    meta: str
    nbytes: int
    callbacks: list[Done]
    # Another job for the same record came after it was begun.
    superseded: bool = field(default=False, init=False)
    # None and empty once released.
    segment: Segment | None
    arrays: list[RawArray]
    finished: threading.Event = field(default_factory=threading.Event)
    ok: bool = False

    @classmethod
    def of(cls, segment: Segment, fingerprint: str, now: float) -> "WriteJob":
        """MLX thread only. Raises TypeError or ValueError if `meta` is not JSON."""
        stored = Stored(
            key=Key(fingerprint, segment.record_id),
            parent_id=segment.parent_id,
            start=segment.start,
            token_ids=segment.token_ids.copy(),
            kind=segment.kind,
            session_id=segment.session_id,
            created=now,
            nbytes=0,
            mtime_ns=0,
            last_use=now,
            pinned=segment.pinned,
        )
        meta = json.dumps(dict(segment.meta))
        arrays = raw_arrays(segment.arrays)
        nbytes = sum(len(array.data) for array in arrays)
        return cls(stored, meta, nbytes, [], segment, arrays)

    def prepare(self) -> PreparedRecord:
        """Sums the arrays' bytes and decides the record's."""
        stored = self.stored
        header = Header(
            fingerprint=stored.key.fingerprint,
            record_id=stored.key.record_id,
            parent_id=stored.parent_id,
            start=stored.start,
            tokens=tokens_to_text(stored.token_ids),
            kind=stored.kind,
            session_id=stored.session_id,
            pinned=stored.pinned,
            created=stored.created,
            meta=self.meta,
            arrays=describe(self.arrays),
        )
        return PreparedRecord(header, self.arrays)

    def finish(self, ok: bool) -> None:
        self.ok = ok
        self.finished.set()
        for done in self.callbacks:
            done(ok)

    def release(self) -> None:
        self.segment = None
        self.arrays = []


@dataclass(eq=False)
class Marker:
    """Reached when all that was queued before it is done."""

    reached: threading.Event = field(default_factory=threading.Event)


class JobQueue:
    """Many threads put, one takes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        self._items: deque[WriteJob | Marker] = deque()
        self._finished: list[WriteJob] = []
        self._unfinished_writes = 0
        self._unfinished_bytes = 0
        self._closed = False

    @property
    def unfinished_writes(self) -> int:
        return self._unfinished_writes

    @property
    def held_bytes(self) -> int:
        """Bytes of arrays that are not released yet."""
        with self._changed:
            return self._unfinished_bytes + sum(job.nbytes for job in self._finished)

    def reserve(self, nbytes: int, wait_seconds: float) -> bool:
        """Takes room for a job; False if there is none in time. A large one may go alone."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._takes(nbytes), wait_seconds):
                return False
            self._unfinished_writes += 1
            self._unfinished_bytes += nbytes
            return True

    def put(self, item: WriteJob | Marker) -> bool:
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
                self.put(Marker())

    def items(self) -> Iterator[WriteJob | Marker]:
        """What was put, in order, until the queue is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed)
                if not self._items:
                    return
                item = self._items.popleft()
            yield item
            # Holds nothing while it waits.
            del item

    def finished(self, job: WriteJob) -> None:
        with self._changed:
            self._unfinished_writes -= 1
            self._unfinished_bytes -= job.nbytes
            self._finished.append(job)
            self._changed.notify_all()

    def reap(self) -> None:
        """Releases the arrays of finished jobs; for the thread that owns them."""
        with self._changed:
            done, self._finished = self._finished, []
        for job in done:
            job.release()

    def close(self) -> list[WriteJob | Marker]:
        """Ends `items` at once; returns what nobody will take."""
        with self._changed:
            left = list(self._items)
            self._items.clear()
            self._closed = True
            self._changed.notify_all()
            return left

    def _takes(self, nbytes: int) -> bool:
        alone = self._unfinished_bytes == 0
        return alone or self._unfinished_bytes + nbytes <= self._limit_bytes
