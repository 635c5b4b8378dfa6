"""An export: a tar file of records, written under a temporary name and then renamed.

    manifest.json             the fingerprint of the caches, and the conversations by name
    RECORD_ID.safetensors     records as the disk tier writes them, parents before children;
                              read-only members are pinned

Nothing is compressed, so nothing grows when it is read. Each member has exactly the header that
`member_header` returns and zeros up to the next 512 bytes; two blocks of zeros end the file. So
every byte is either checksummed or known. While a file is written it is locked; the next export
into the folder removes unfinished files without a lock, since their writers were killed.
"""

import contextlib
import fcntl
import os
import tarfile
import tempfile
from collections.abc import Iterable
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from anyclaude.mlx.kv_disk.record import Seal
from anyclaude.mlx.kv_disk.values import RECORD_SUFFIX
from anyclaude.mlx.kv_disk.writer import WriteJob
from anyclaude.mlx.kv_disk.writing import mode_of, sync_file, sync_folder, write_all

MANIFEST: Final = "manifest.json"
MANIFEST_SEAL: Final = Seal("", "anyclaude-export", 2)
BLOCK_BYTES: Final = tarfile.BLOCKSIZE
END_BYTES: Final = 2 * BLOCK_BYTES
_TEMP_PREFIX: Final = ".anyclaude-export-"


class Fault(Enum):
    """The kinds of failure; each asks for another reaction."""

    # The file or the cache that was named does not exist.
    MISSING = auto()
    # The file is not, byte for byte, what an export writes.
    DAMAGED = auto()
    # The file is sound, but not for this worker, or may not be written there.
    REFUSED = auto()
    # The file is larger than the budget.
    TOO_LARGE = auto()


class ExchangeError(Exception):
    """The export or import failed; the message says why, what stays, and what to do."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


_Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{0,64}$")]
# Names are printed to terminals, so they must not contain control characters.
_Name = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{0,256}$")]
_Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NamedTip(_Strict):
    """A conversation, and the record that it ends with. Times are epoch seconds."""

    session_id: _Name
    agent_id: _Name
    stable_digest: _Digest
    create_time: _Seconds
    last_use: _Seconds
    tip: _Digest


class Manifest(_Strict):
    format: str = MANIFEST_SEAL.fields["format"]
    checksum: str = MANIFEST_SEAL.fields["checksum"]
    fingerprint: _Digest
    # The name that people see.
    model: str = Field(max_length=256)
    create_time: _Seconds
    lineages: list[NamedTip] = Field(max_length=100_000)


def member_header(name: str, nbytes: int, mode: int, mtime: int) -> bytes:
    """One block. GNU's format, in which a member may be larger than 8 GiB."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = nbytes, mode, mtime
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def padding_bytes(nbytes: int) -> int:
    """Zeros that follow a member of `nbytes`."""
    return -nbytes % BLOCK_BYTES


class ExportWriter:
    """One file being written; only its owner can read it, since it contains conversations.

    Its methods raise OSError when the disk refuses; `abandon` then leaves nothing behind.
    """

    def __init__(self, path: Path, manifest: Manifest, *, overwrite: bool) -> None:
        """Raises ExchangeError if the file exists, and OSError if it cannot be created."""
        if path.exists() and not overwrite:
            raise ExchangeError(
                Fault.REFUSED, f"{path} is there already. Choose another name, or give --force."
            )
        if path.is_dir():
            raise ExchangeError(Fault.REFUSED, f"{path} is a folder. Name a file in it.")
        self._path = path
        _remove_leftovers(path.parent)
        self._descriptor, self._temp = _locked_temp(path.parent)
        self._is_open = True
        text = MANIFEST_SEAL.close(manifest.model_dump_json().encode())
        try:
            self._add(MANIFEST, 0o600, manifest.create_time, [text])
        except OSError:
            self.abandon()
            raise

    def add(self, job: WriteJob) -> None:
        info = job.info
        name = f"{info.record_id}{RECORD_SUFFIX}"
        self._add(name, mode_of(info), info.created, job.encode())

    def finish(self) -> int:
        """Renames the file to its final name; returns its size in bytes."""
        write_all(self._descriptor, bytes(END_BYTES))
        sync_file(self._descriptor)
        nbytes = os.fstat(self._descriptor).st_size
        # It is renamed or deleted before it is unlocked.
        self._temp.replace(self._path)
        self._close()
        sync_folder(self._path.parent)
        return nbytes

    def abandon(self) -> None:
        """Removes the file unless it is finished."""
        self._temp.unlink(missing_ok=True)
        self._close()

    def _add(self, name: str, mode: int, mtime: float, parts: Iterable[bytes | memoryview]) -> None:
        parts = list(parts)
        nbytes = sum(len(part) for part in parts)
        header = member_header(name, nbytes, mode, int(mtime))
        for part in (header, *parts, bytes(padding_bytes(nbytes))):
            write_all(self._descriptor, part)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)


def _locked_temp(folder: Path) -> tuple[int, Path]:
    """A new file of mode 0600."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_TEMP_PREFIX)
        try:
            is_ours = _lock(descriptor)
        except OSError:
            # On a file system without locks, no other export removes unfinished files.
            is_ours = True
        if is_ours and os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        # Another export, which removes leftovers, has locked it first.
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(_TEMP_PREFIX + "*"):
        # It may have been removed by now, or belong to another user.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """False where another writer has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
