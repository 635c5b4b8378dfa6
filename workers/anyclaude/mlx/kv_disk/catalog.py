"""The records on disk, within one budget: writing, evicting and deleting them.

Invariants:
  - the folder never uses more bytes than the budget, the write in progress included, nor has more
    records than `Bounds.max_records`;
  - each record in the ledger is a complete file, and leaves the ledger before its file is deleted;
  - a record is in the ledger only while its parent is.
`lock` guards the ledger, the counts and the list of deletions. Files are changed by one thread at a
time (the one that opens, then the writer), without the lock.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from anyclaude.mlx.kv_disk.folder import Found, RecordFile, RecordFolder, SharedFolderError
from anyclaude.mlx.kv_disk.ledger import Ledger
from anyclaude.mlx.kv_disk.values import Bounds, Key, RecordInfo
from anyclaude.mlx.kv_disk.writing import (
    Failpoint,
    FolderSyncError,
    Point,
    update_marks,
    write_record,
)

log = structlog.get_logger(__name__)


class BudgetError(Exception):
    """The record may not be written: its bytes are not free, or its parent is not stored."""


class VolumeFullError(BudgetError):
    """The volume has too little free space now."""


@dataclass
class Counts:
    """What happened since the start; guarded by the catalog's lock."""

    written: int = 0
    loaded: int = 0
    failed_writes: int = 0
    skipped_writes: int = 0
    evicted: int = 0
    quarantined: int = 0
    orphans: int = 0
    last_error: str = ""


class Catalog:
    """One folder of records, within one budget."""

    def __init__(
        self, folder: Path, fingerprint: str, budget_bytes: int, bounds: Bounds, reach: Failpoint
    ) -> None:
        self.lock = threading.RLock()
        self.counts = Counts()
        self.ledger = Ledger(fingerprint)
        # Whether this process has locked the folder.
        self.attached = False
        self._fingerprint = fingerprint
        self._folder = RecordFolder(folder)
        self._budget_bytes = budget_bytes
        self._bounds = bounds
        self._quarantine_limit = min(bounds.quarantine_bytes, budget_bytes // 10)
        self._reach = reach
        # Records whose last use or pin their files do not show yet.
        self._marked: set[Key] = set()
        # Files to delete, or to quarantine if they have a reason; in order.
        self._deletions: list[RecordFile] = []
        self._unsupported: list[RecordFile] = []
        self._in_flight_bytes = 0
        self._quarantine_bytes = 0

    # --- For any thread ---

    @property
    def used_bytes(self) -> int:
        """All bytes in the folder; an upper bound while files are written or deleted."""
        with self.lock:
            others = sum(file.nbytes for file in (*self._deletions, *self._unsupported))
            return self.ledger.nbytes + others + self._in_flight_bytes + self._quarantine_bytes

    @property
    def unsupported(self) -> int:
        """How many records of another format are in the folder."""
        with self.lock:
            return len(self._unsupported)

    @property
    def is_settled(self) -> bool:
        with self.lock:
            return not (self._marked or self._deletions)

    def path_of(self, key: Key) -> Path:
        return self._folder.record_path(key)

    def note(self, error: str) -> None:
        with self.lock:
            self.counts.last_error = error

    def mark(self, keys: Iterable[Key], change: Callable[[RecordInfo], None]) -> None:
        """Changes records' last use or pin; `settle` updates their files."""
        with self.lock:
            for key in keys:
                info = self.ledger.get(key)
                if info is not None:
                    change(info)
                    self._marked.add(key)

    def drop(self, keys: Iterable[Key]) -> list[RecordInfo]:
        """Drops records and all that build on them; `settle` deletes their files."""
        with self.lock:
            dropped = self.ledger.with_descendants(keys)
            self._delete(dropped)
            return dropped

    def quarantine(self, info: RecordInfo, reason: str) -> None:
        """Drops a corrupt record and all that build on it; `settle` quarantines its file."""
        log.warning("corrupt cache record", record=info.record_id, reason=reason)
        with self.lock:
            self.counts.last_error = f"{self.path_of(info.key)}: {reason}"
            if self.ledger.get(info.key) is not info:
                return
            dropped = self.ledger.with_descendants([info.key])
            self._delete([below for below in dropped if below is not info])
            self._delete([info], reason)
            self.counts.quarantined += len(dropped)

    def _delete(self, records: Iterable[RecordInfo], reason: str = "") -> None:
        for info in records:
            self.ledger.discard(info.key)
            self._marked.discard(info.key)
            file = RecordFile(info.key, self.path_of(info.key), info.nbytes, reason)
            self._deletions.append(file)

    # --- For the thread that opens, then for the writer ---

    def open(self) -> None:
        """Locks the folder and finds what is in it; if it cannot write, finds what it can read.

        Raises:
            SharedFolderError: another process has locked it; nothing is read.
            OSError: it cannot be written to; records that can be read are in the ledger.
        """
        try:
            self._folder.lock()
            self._folder.remove_leftovers()
        except SharedFolderError:
            raise
        except OSError:
            self._folder.unlock()
            with contextlib.suppress(OSError):
                self._adopt(self._folder.scan())
            raise
        self._adopt(self._folder.scan())
        self.attached = True
        self._quarantine_bytes = self._folder.quarantine_bytes()
        if self._quarantine_bytes > self._quarantine_limit:
            self._folder.trim_quarantine(0)
            self._quarantine_bytes = 0
        with self.lock:
            self._evict_for(0, ())
        self.settle()

    def _adopt(self, found: Found) -> None:
        ledger = Ledger(self._fingerprint)
        for info in found.records:
            ledger.add(info)
        with self.lock:
            self.ledger = ledger
            orphans = ledger.orphans()
            self._deletions = []
            self._delete(orphans)
            self._deletions += found.corrupt
            self._unsupported = found.unsupported
            self.counts.orphans += len(orphans)
            self.counts.quarantined += len(found.corrupt)
            for file in (*found.corrupt, *found.unread):
                self.counts.last_error = f"{file.path}: {file.reason}"

    def store(
        self, parts: Sequence[bytes | memoryview], info: RecordInfo, claim: Callable[[], bool]
    ) -> bool:
        """Writes a record and enters it in the ledger; returns whether it was entered.

        `claim` is called under the lock when the file is complete; False if it is not wanted now.

        Raises:
            BudgetError: its parent is not stored, or the budget or the volume lacks its bytes.
            OSError: the disk refused; nothing is left of it.
        """
        nbytes = sum(len(part) for part in parts)
        self.settle(strictly=True)
        with self.lock:
            if info.parent is not None and info.parent not in self.ledger:
                raise BudgetError(f"its parent {info.parent_id} is not on disk")
            self._delete_namesakes(info.key)
            self._evict_for(nbytes, self.ledger.ancestors(info.parent) | {info.key})
            self._in_flight_bytes = nbytes
        try:
            self.settle(strictly=True)
            self._reach(Point.EVICTED)
            self._check_space(nbytes)
            try:
                write_record(self.path_of(info.key), parts, info, self._reach)
            except FolderSyncError as error:
                self.note(str(error))
            info.nbytes = nbytes
            return self._enter(info, claim)
        finally:
            with self.lock:
                self._in_flight_bytes = 0

    def settle(self, *, strictly: bool = False) -> None:
        """Updates the files from the ledger: deletions, then last use and pins.

        Raises:
            OSError: with `strictly`, a file could not be deleted; otherwise that is logged.
        """
        try:
            self._delete_files()
        except OSError as error:
            self.note(str(error))
            if strictly:
                raise
        self._update_marks()

    def is_in_place(self) -> bool:
        """Whether the locked folder is still the one at its path."""
        return self._folder.is_in_place()

    def close(self) -> None:
        self._folder.unlock()
        self.attached = False

    def _check_space(self, needed_bytes: int) -> None:
        """Checks the budget once more: deleted files may have gone to the quarantine."""
        if self.used_bytes > self._budget_bytes:
            raise BudgetError(f"no {needed_bytes} bytes are left beside the quarantine")
        self.check_free(needed_bytes)

    def check_free(self, needed_bytes: int) -> None:
        """
        Raises:
            VolumeFullError: the volume lacks the bytes.
        """
        free = shutil.disk_usage(self._folder.path).free
        if free < needed_bytes + self._bounds.min_free_bytes:
            raise VolumeFullError(
                f"{needed_bytes} bytes needed and {free} free on the volume of "
                f"{self._folder.path}, where {self._bounds.min_free_bytes} are left to others"
            )

    def _enter(self, info: RecordInfo, claim: Callable[[], bool]) -> bool:
        """Enters the record, unless its parent was removed while it was written."""
        with self.lock:
            claimed = claim()
            if claimed and (info.parent is None or info.parent in self.ledger):
                self.ledger.add(info)
                # Its marks may have changed since they were written.
                self._marked.add(info.key)
                self.counts.written += 1
                return True
            # The record whose file it replaced is gone as well.
            self._delete(self.ledger.with_descendants([info.key]))
            self._deletions.append(RecordFile(info.key, self.path_of(info.key), info.nbytes))
            return False

    def _delete_namesakes(self, key: Key) -> None:
        """Deletes records of another format that have this name."""
        self._deletions += [file for file in self._unsupported if file.key == key]
        self._unsupported = [file for file in self._unsupported if file.key != key]

    def _evict_for(self, needed_bytes: int, protected: Collection[Key]) -> None:
        """Deletes unsupported records, then the least recently used leaves, until the bytes fit.

        Raises:
            BudgetError: they would not fit even then; no record is evicted.
        """
        freed = sum(file.nbytes for file in self._deletions)
        excess = self.used_bytes - freed + needed_bytes - self._budget_bytes
        while excess > 0 and self._unsupported:
            other = self._unsupported.pop()
            self._deletions.append(other)
            excess -= other.nbytes
        surplus = len(self.ledger) + bool(needed_bytes) - self._bounds.max_records
        victims = self.ledger.victims(excess, protected, excess_records=self._batch(surplus))
        if needed_bytes and sum(victim.nbytes for victim in victims) < excess:
            raise BudgetError(
                f"the budget has no {needed_bytes} bytes left: the rest is pinned or its prefix"
            )
        if needed_bytes and len(victims) < surplus:
            raise BudgetError(
                f"there are {len(self.ledger)} records, and all are pinned or its prefix"
            )
        self._delete(victims)
        self.counts.evicted += len(victims)

    def _batch(self, surplus: int) -> int:
        """How many records to evict: some more than needed, since choosing them reads them all."""
        return surplus + self._bounds.max_records // 100 if surplus > 0 else 0

    def _delete_files(self) -> None:
        deleted = False
        try:
            # Others only append to the list.
            while self._deletions:
                self._delete_file(self._deletions[0])
                with self.lock:
                    del self._deletions[0]
                deleted = True
        finally:
            if deleted:
                self._reach(Point.UNLINKED)

    def _delete_file(self, file: RecordFile) -> None:
        if file.reason and file.path.exists():
            self._folder.quarantine(file, self._quarantine_limit)
            self._quarantine_bytes = self._folder.quarantine_bytes()
            return
        file.path.unlink(missing_ok=True)
        if file.key.fingerprint != self._fingerprint:
            # With the last record of a model that is no longer used, its folders are removed.
            with contextlib.suppress(OSError):
                file.path.parent.rmdir()
                file.path.parent.parent.rmdir()

    def _update_marks(self) -> None:
        with self.lock:
            marked = [info for key in self._marked if (info := self.ledger.get(key))]
            self._marked = set()
        for info in marked:
            path = self.path_of(info.key)
            try:
                update_marks(path, info)
            except FileNotFoundError:
                # Loading the record will report that it is missing.
                continue
            except OSError as error:
                self.note(f"{path}: {error}")
