"""The folder on disk: names, the lock, what lies in it, and the quarantine.

lock                                     held by the one process that may write
index.sqlite
quarantine/NAME.kv, NAME.txt             doubtful records and why
FINGERPRINT/RECORD_ID[:2]/RECORD_ID.kv   records
"""

import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anyclaude.mlx.kv_disk.ledger import Key
from anyclaude.mlx.kv_disk.writing import TEMP_SUFFIX, make_folder

RECORD_SUFFIX = ".kv"
_REASON_SUFFIX = ".txt"
_QUARANTINE = "quarantine"
_FINGERPRINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_RECORD_ID = re.compile(r"[0-9a-f]{2,128}")


class SharedFolderError(Exception):
    """Another process owns the folder."""


@dataclass(frozen=True)
class RecordFile:
    """A file that stands where a record would."""

    key: Key
    path: Path
    nbytes: int
    mtime_ns: int


class RecordFolder:
    """Paths and whole-file operations; knows nothing of what a record holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def index_path(self) -> Path:
        return self.path / "index.sqlite"

    def record_path(self, key: Key) -> Path:
        return self.path / key.fingerprint / key.record_id[:2] / f"{key.record_id}{RECORD_SUFFIX}"

    def own(self) -> None:
        """Creates the folder and takes its lock, which ends with the process at the latest.

        Raises:
            SharedFolderError: another process has it.
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

    def let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def record_files(self) -> Iterator[RecordFile]:
        for fingerprint, entry in self._entries():
            name = entry.name.removesuffix(RECORD_SUFFIX)
            if name != entry.name and _RECORD_ID.fullmatch(name):
                status = entry.stat(follow_symlinks=False)
                key = Key(fingerprint, name)
                yield RecordFile(key, Path(entry.path), status.st_size, status.st_mtime_ns)

    def remove_temporary_files(self) -> None:
        """What a crashed writer left; only the lock's owner may do this."""
        for _, entry in self._entries():
            if entry.name.endswith(TEMP_SUFFIX):
                Path(entry.path).unlink(missing_ok=True)

    def quarantine(self, path: Path, key: Key, reason: str, limit_bytes: int) -> None:
        """Moves a file aside, if it fits within the limit; older ones make room for it."""
        text = f"{path}\n{reason}\n".encode()
        needed = path.stat().st_size + len(text)
        if needed > limit_bytes:
            path.unlink()
            return
        folder = self.path / _QUARANTINE
        make_folder(folder)
        self._trim_quarantine(limit_bytes - needed)
        target = folder / f"{key.fingerprint[:16]}-{key.record_id}{RECORD_SUFFIX}"
        target.with_suffix(_REASON_SUFFIX).write_bytes(text)
        path.rename(target)

    def quarantine_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._quarantined())

    def _trim_quarantine(self, limit_bytes: int) -> None:
        oldest_first = sorted(self._quarantined(), key=lambda path: path.stat().st_mtime_ns)
        held = self.quarantine_bytes()
        for path in oldest_first:
            if held <= limit_bytes:
                return
            held -= path.stat().st_size
            path.unlink()

    def empty_quarantine(self) -> None:
        self._trim_quarantine(0)

    def _quarantined(self) -> list[Path]:
        folder = self.path / _QUARANTINE
        return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []

    def _entries(self) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        """All plain files two levels down, with the fingerprint that they lie under."""
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
    """Raises ValueError for what cannot name a folder of records."""
    if not _FINGERPRINT.fullmatch(fingerprint) or fingerprint == _QUARANTINE:
        raise ValueError(f"{fingerprint!r} cannot name a model's folder")


def check_record_id(record_id: str) -> None:
    """Raises ValueError for what cannot name a record."""
    if not _RECORD_ID.fullmatch(record_id):
        raise ValueError(f"{record_id!r} is not a record id: lower-case hex of 2 to 128 digits")


def _folders(path: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(path) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
