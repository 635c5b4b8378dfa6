"""The records on disk as the process that owns the folder keeps them: added, found, let go.

Invariants:
  - the folder never holds more than the budget, the write under way and the index counted;
  - what the ledger names is a complete file, and what is to go leaves the ledger before its file;
  - a record is in the ledger only while its parent is.
The ledger, the counts and the list of the doomed are guarded by `lock`; files and the index are
touched by one thread at a time (the opening one, then the writer), which holds no lock meanwhile.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from anyclaude.mlx.kv_disk.failpoints import Failpoint, Point
from anyclaude.mlx.kv_disk.folder import RecordFile, RecordFolder, SharedFolderError
from anyclaude.mlx.kv_disk.index import JOURNAL_BYTES, Index
from anyclaude.mlx.kv_disk.keeper import IndexKeeper
from anyclaude.mlx.kv_disk.ledger import Key, Ledger, Stored
from anyclaude.mlx.kv_disk.scan import Found, scan
from anyclaude.mlx.kv_disk.values import Bounds
from anyclaude.mlx.kv_disk.writing import FolderSyncError, PreparedRecord

log = structlog.get_logger(__name__)


class NoRoomError(Exception):
    """The record may not be written: what it needs is not there, or may not be taken."""


class VolumeFullError(NoRoomError):
    """Not now: the volume has too little free space."""


@dataclass
class Counts:
    """What happened since the start; guarded by the shelf's lock."""

    written: int = 0
    loaded: int = 0
    failed_writes: int = 0
    skipped_writes: int = 0
    evicted: int = 0
    quarantined: int = 0
    orphans: int = 0
    index_failures: int = 0
    last_error: str = ""


@dataclass(frozen=True, eq=False)
class _Doomed:
    """A file that is to go; with a reason it goes to the quarantine."""

    key: Key
    path: Path
    nbytes: int
    reason: str = ""


class Shelf:
    """One folder of records, within one budget."""

    def __init__(
        self, folder: Path, fingerprint: str, budget_bytes: int, bounds: Bounds, reach: Failpoint
    ) -> None:
        self.lock = threading.RLock()
        self.counts = Counts()
        self.ledger = Ledger(fingerprint)
        # Whether this process owns the folder.
        self.attached = False
        self._fingerprint = fingerprint
        self._folder = RecordFolder(folder)
        self._budget_bytes = budget_bytes
        self._bounds = bounds
        self._quarantine_limit = min(bounds.quarantine_bytes, budget_bytes // 10)
        self._reach = reach
        self._index = IndexKeeper(
            self._folder.index_path, lambda: self.ledger.all(), self._note_index
        )
        self._marked: set[Key] = set()
        self._doomed: list[_Doomed] = []
        self._other_versions: list[_Doomed] = []
        self._in_flight_bytes = 0
        self._quarantine_bytes = 0

    # --- What any thread may ask ---

    @property
    def held_bytes(self) -> int:
        """Everything in the folder; an upper bound while files come and go."""
        with self.lock:
            leftovers = sum(doomed.nbytes for doomed in (*self._doomed, *self._other_versions))
            own = self._in_flight_bytes + self._index.nbytes + self._quarantine_bytes
            return self.ledger.nbytes + leftovers + own

    @property
    def other_versions(self) -> int:
        """Records of another format that still lie there."""
        with self.lock:
            return len(self._other_versions)

    @property
    def unsettled(self) -> bool:
        with self.lock:
            return bool(self._marked or self._doomed)

    def path_of(self, key: Key) -> Path:
        return self._folder.record_path(key)

    def note(self, error: str) -> None:
        with self.lock:
            self.counts.last_error = error

    def mark(self, keys: Iterable[Key], change: Callable[[Stored], None]) -> None:
        """Changes records' last use or pin; the index follows."""
        with self.lock:
            for key in keys:
                stored = self.ledger.get(key)
                if stored is not None:
                    change(stored)
                    self._marked.add(key)

    def drop(self, keys: Iterable[Key]) -> list[Stored]:
        """Takes records and all below them out of use; their files follow."""
        with self.lock:
            gone = self.ledger.with_descendants(keys)
            self._doom(gone)
            return gone

    def quarantine(self, stored: Stored, reason: str) -> None:
        """Takes a doubtful record and all below it out of use."""
        log.warning("doubtful cache record", record=stored.key.record_id, reason=reason)
        with self.lock:
            self.counts.last_error = f"{self.path_of(stored.key)}: {reason}"
            if self.ledger.get(stored.key) is not stored:
                return
            gone = self.ledger.with_descendants([stored.key])
            self._doom([below for below in gone if below is not stored])
            self._doom([stored], reason)
            self.counts.quarantined += len(gone)

    def _doom(self, records: Iterable[Stored], reason: str = "") -> None:
        for stored in records:
            self.ledger.discard(stored.key)
            self._marked.discard(stored.key)
            doomed = _Doomed(stored.key, self.path_of(stored.key), stored.nbytes, reason)
            self._doomed.append(doomed)

    def _note_index(self, error: str) -> None:
        with self.lock:
            self.counts.index_failures += 1
            self.counts.last_error = error

    # --- The opening thread, then the writer ---

    def open(self) -> None:
        """Owns the folder and finds what is in it; without it, finds what can be read.

        Raises:
            SharedFolderError: another process owns it; nothing is read.
            OSError: it cannot be written to; what can be read is there.
        """
        try:
            self._folder.own()
            self._folder.remove_temporary_files()
        except SharedFolderError:
            raise
        except OSError:
            self._folder.let_go()
            self._take_over(self._scan_alone())
            raise
        rows = self._index.rows()
        found = scan(self._folder, rows)
        self._index.compare(rows, found.records)
        self._take_over(found)
        self.attached = True
        self._settle_opening()

    def _scan_alone(self) -> Found:
        try:
            return scan(self._folder, ())
        except OSError as error:
            self.note(str(error))
            return Found()

    def _take_over(self, found: Found) -> None:
        ledger = Ledger(self._fingerprint)
        for stored in found.records:
            ledger.add(stored)
        with self.lock:
            self.ledger = ledger
            orphans = ledger.orphans()
            self._doomed = []
            self._doom(orphans)
            self._doomed += [_doomed(file, reason) for file, reason in found.doubtful]
            self._other_versions = [_doomed(file) for file in found.other_versions]
            self.counts.orphans += len(orphans)
            self.counts.quarantined += len(found.doubtful)
            for file, reason in (*found.doubtful, *found.unread):
                self.counts.last_error = f"{file.path}: {reason}"

    def _settle_opening(self) -> None:
        self._quarantine_bytes = self._folder.quarantine_bytes()
        if self._quarantine_bytes > self._quarantine_limit:
            self._folder.empty_quarantine()
            self._quarantine_bytes = 0
        self._index.change(lambda _: None)
        with self.lock:
            self._make_room(0, ())
        self.settle()

    def store(self, record: PreparedRecord, stored: Stored, claim: Callable[[], bool]) -> bool:
        """Writes a record and enters it in the ledger.

        Args:
            claim: asked under the lock when the file is complete; False if nobody wants it now.

        Returns:
            Whether the record was entered.

        Raises:
            NoRoomError: its parent is not there, or the budget or the volume has no room for it.
            OSError: the disk refused; nothing is left of it.
        """
        self.settle(strictly=True)
        # The tokens stand in the index, too, and for a moment in its journal.
        needed = record.nbytes + 3 * stored.token_ids.nbytes
        with self.lock:
            self._check_parent(stored)
            self._doom_namesake(stored.key)
            self._make_room(needed, self.ledger.ancestors(stored.parent) | {stored.key})
            self._in_flight_bytes = needed
        try:
            self.settle(strictly=True)
            self._reach(Point.EVICTED)
            self._check_space(record.nbytes)
            self._write(record, stored)
            entered = self._enter(stored, claim)
        finally:
            with self.lock:
                self._in_flight_bytes = 0
        if entered:
            self._index.change(lambda index: self._put_row(index, stored))
        return entered

    def settle(self, *, strictly: bool = False) -> None:
        """Lets the files follow the ledger, then the index.

        Raises:
            OSError: with `strictly`, a file could not be removed; else that is noted.
        """
        try:
            self._remove_doomed()
        except OSError as error:
            self.note(str(error))
            if strictly:
                raise
        self._write_marks()

    def close(self) -> None:
        self._index.close()
        self._folder.let_go()
        self.attached = False

    def _check_parent(self, stored: Stored) -> None:
        if stored.parent is not None and stored.parent not in self.ledger:
            raise NoRoomError(f"its parent {stored.parent_id} is not on disk")

    def _check_space(self, needed_bytes: int) -> None:
        """Looks once more when the doomed are gone: some may have gone to the quarantine."""
        if self.held_bytes + JOURNAL_BYTES > self._budget_bytes:
            raise NoRoomError(f"no room for {needed_bytes} bytes beside the quarantine")
        free = shutil.disk_usage(self._folder.path).free
        if free < needed_bytes + self._bounds.min_free_bytes:
            raise VolumeFullError(
                f"{needed_bytes} bytes needed and {free} free on the volume of "
                f"{self._folder.path}, where {self._bounds.min_free_bytes} are left to others"
            )

    def _write(self, record: PreparedRecord, stored: Stored) -> None:
        path = self.path_of(stored.key)
        try:
            record.write(path, self._reach)
        except FolderSyncError as error:
            self.note(str(error))
        status = path.stat()
        stored.nbytes, stored.mtime_ns = status.st_size, status.st_mtime_ns

    def _enter(self, stored: Stored, claim: Callable[[], bool]) -> bool:
        """Claims the record, unless its parent went while it was written."""
        with self.lock:
            claimed = claim()
            if claimed and (stored.parent is None or stored.parent in self.ledger):
                self.ledger.add(stored)
                self.counts.written += 1
                return True
            # The file in whose place it came is gone, too.
            self._doom(self.ledger.with_descendants([stored.key]))
            self._doomed.append(_Doomed(stored.key, self.path_of(stored.key), stored.nbytes))
            return False

    def _put_row(self, index: Index, stored: Stored) -> None:
        index.put(stored)
        self._reach(Point.INDEXED)

    def _doom_namesake(self, key: Key) -> None:
        """A record of another format that has this name makes way."""
        self._doomed += [other for other in self._other_versions if other.key == key]
        self._other_versions = [other for other in self._other_versions if other.key != key]

    def _make_room(self, needed_bytes: int, protected: Collection[Key]) -> None:
        """Dooms other formats' records, then the least recently used leaves, until it fits.

        Nothing goes when even that would not do.
        """
        doomed_bytes = sum(doomed.nbytes for doomed in self._doomed)
        held = self.held_bytes - doomed_bytes + JOURNAL_BYTES
        excess = held + needed_bytes - self._budget_bytes
        while excess > 0 and self._other_versions:
            other = self._other_versions.pop()
            self._doomed.append(other)
            excess -= other.nbytes
        victims = self.ledger.victims(excess, protected)
        if needed_bytes and sum(victim.nbytes for victim in victims) < excess:
            raise NoRoomError(f"no room for {needed_bytes} bytes: the rest is pinned or its prefix")
        self._doom(victims)
        self.counts.evicted += len(victims)

    def _remove_doomed(self) -> None:
        removed = []
        try:
            while (doomed := self._next_doomed()) is not None:
                self._remove_file(doomed)
                with self.lock:
                    del self._doomed[0]
                removed.append(doomed.key)
        finally:
            if removed:
                self._reach(Point.UNLINKED)
                self._index.change(lambda index: index.delete(removed))

    def _next_doomed(self) -> _Doomed | None:
        with self.lock:
            return self._doomed[0] if self._doomed else None

    def _remove_file(self, doomed: _Doomed) -> None:
        if doomed.reason and doomed.path.exists():
            self._folder.quarantine(doomed.path, doomed.key, doomed.reason, self._quarantine_limit)
            self._quarantine_bytes = self._folder.quarantine_bytes()
            return
        doomed.path.unlink(missing_ok=True)
        if doomed.key.fingerprint != self._fingerprint:
            # The last record of a model that is no longer used takes its folders along.
            with contextlib.suppress(OSError):
                doomed.path.parent.rmdir()
                doomed.path.parent.parent.rmdir()

    def _write_marks(self) -> None:
        with self.lock:
            marked = [stored for key in self._marked if (stored := self.ledger.get(key))]
            self._marked = set()
        if marked:
            self._index.change(lambda index: index.mark(marked))


def _doomed(file: RecordFile, reason: str = "") -> _Doomed:
    return _Doomed(file.key, file.path, file.nbytes, reason)
