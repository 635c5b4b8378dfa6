"""The folder on disk: names, the lock, the files in it, and the quarantine.

lock                                              locked by the one process that may write
quarantine/NAME.safetensors, NAME.txt             corrupt records, and why
FINGERPRINT/RECORD_ID[:2]/RECORD_ID.safetensors   records
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from anyclaude.mlx.kv_disk.reading import opened
from anyclaude.mlx.kv_disk.record import CorruptRecordError, UnsupportedRecordError
from anyclaude.mlx.kv_disk.values import RECORD_SUFFIX, Key, RecordInfo
from anyclaude.mlx.kv_disk.writing import TEMP_SUFFIX, make_folder

# Format 1 had a file format and an index of its own. Its records count as unsupported.
_OLD_SUFFIX: Final = ".kv"
_OLD_INDEX: Final = ("index.sqlite", "index.sqlite-journal")
_REASON_SUFFIX: Final = ".txt"
_QUARANTINE: Final = "quarantine"
_FINGERPRINT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_RECORD_ID: Final = re.compile(r"[0-9a-f]{2,128}")


class SharedFolderError(Exception):
    """Another process owns the folder."""


@dataclass(frozen=True, eq=False)
class RecordFile:
    """A file with the name of a record; `reason` is empty unless it is corrupt."""

    key: Key
    path: Path
    nbytes: int
    reason: str = ""


@dataclass
class Found:
    """The contents of a folder."""

    records: list[RecordInfo] = field(default_factory=list)
    unsupported: list[RecordFile] = field(default_factory=list)
    corrupt: list[RecordFile] = field(default_factory=list)
    # Files that could not be read this time; they stay.
    unread: list[RecordFile] = field(default_factory=list)


class RecordFolder:
    """Paths and operations on whole files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def record_path(self, key: Key) -> Path:
        return self.path / key.fingerprint / key.record_id[:2] / f"{key.record_id}{RECORD_SUFFIX}"

    def lock(self) -> None:
        """Creates the folder and locks it; the lock ends with the process at the latest.

        Raises:
            SharedFolderError: another process has locked it.
            OSError: the folder cannot be made or written to.
        """
        make_folder(self.path)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise SharedFolderError(
                f"{self.path} belongs to process {owner or 'unknown'}; nothing is kept on disk "
                "until it ends. Set ANYCLAUDE_HOME to run a second instance."
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        self._lock = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_in_place(self) -> bool:
        """Whether the lock is the file at its path: somebody may have removed the folder."""
        if self._lock is None:
            return False
        try:
            there = (self.path / "lock").stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._lock))

    def scan(self) -> Found:
        """Reads the header of every record. Changes nothing, so the folder may be read-only."""
        found = Found()
        for fingerprint, entry in self._entries():
            name, suffix = Path(entry.name).stem, Path(entry.name).suffix
            if suffix in (RECORD_SUFFIX, _OLD_SUFFIX) and _RECORD_ID.fullmatch(name):
                status = entry.stat(follow_symlinks=False)
                file = RecordFile(Key(fingerprint, name), Path(entry.path), status.st_size)
                if suffix == _OLD_SUFFIX:
                    found.unsupported.append(file)
                else:
                    _read(file, status, found)
        return found

    def remove_leftovers(self) -> None:
        """Deletes a killed writer's files and an older version's index; needs the lock."""
        for _, entry in self._entries():
            if entry.name.endswith(TEMP_SUFFIX):
                Path(entry.path).unlink(missing_ok=True)
        for name in _OLD_INDEX:
            if (self.path / name).is_file():
                (self.path / name).unlink()

    def quarantine(self, file: RecordFile, limit_bytes: int) -> None:
        """Quarantines a file, in place of the oldest ones there; deletes one that is too large."""
        text = f"{file.path}\n{file.reason}\n".encode()
        needed = file.path.stat().st_size + len(text)
        if needed > limit_bytes:
            file.path.unlink()
            return
        folder = self.path / _QUARANTINE
        make_folder(folder)
        self.trim_quarantine(limit_bytes - needed)
        target = folder / f"{file.key.fingerprint[:16]}-{file.key.record_id}{RECORD_SUFFIX}"
        target.with_suffix(_REASON_SUFFIX).write_bytes(text)
        file.path.rename(target)

    def quarantine_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._quarantined())

    def trim_quarantine(self, limit_bytes: int) -> None:
        """Deletes the oldest files until the rest is within the limit."""
        used = self.quarantine_bytes()
        for path in sorted(self._quarantined(), key=lambda path: path.stat().st_ctime_ns):
            if used <= limit_bytes:
                return
            used -= path.stat().st_size
            path.unlink()

    def _quarantined(self) -> list[Path]:
        folder = self.path / _QUARANTINE
        return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []

    def _entries(self) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        """All plain files two levels down, each with the fingerprint of its folder."""
        if not self.path.is_dir():
            return
        for fingerprint in _folders(self.path):
            if fingerprint.name == _QUARANTINE or not _FINGERPRINT.fullmatch(fingerprint.name):
                continue
            for shard in _folders(Path(fingerprint.path)):
                with os.scandir(shard.path) as entries:
                    for entry in entries:
                        if entry.is_file(follow_symlinks=False):
                            yield fingerprint.name, entry


def check_fingerprint(fingerprint: str) -> None:
    """Raises ValueError if `fingerprint` cannot name a folder of records."""
    if not _FINGERPRINT.fullmatch(fingerprint) or fingerprint == _QUARANTINE:
        raise ValueError(f"{fingerprint!r} cannot name a model's folder")


def check_record_id(record_id: str) -> None:
    """Raises ValueError if `record_id` cannot name a record."""
    if not _RECORD_ID.fullmatch(record_id):
        raise ValueError(f"{record_id!r} is not a record id: lower-case hex of 2 to 128 digits")


def check_name(info: RecordInfo, key: Key) -> None:
    """Raises CorruptRecordError if a record has another one's file name."""
    if info.key != key:
        raise CorruptRecordError(f"it is {info.record_id} of model {info.fingerprint}")


def _read(file: RecordFile, status: os.stat_result, found: Found) -> None:
    pinned = not status.st_mode & stat.S_IWUSR
    try:
        with opened(file.path) as record:
            info = record.head.info(file.nbytes, status.st_mtime_ns / 1e9, pinned)
        check_name(info, file.key)
    except UnsupportedRecordError:
        found.unsupported.append(file)
    except CorruptRecordError as error:
        found.corrupt.append(RecordFile(file.key, file.path, file.nbytes, str(error)))
    except OSError as error:
        found.unread.append(RecordFile(file.key, file.path, file.nbytes, str(error)))
    else:
        found.records.append(info)


def _folders(path: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(path) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
