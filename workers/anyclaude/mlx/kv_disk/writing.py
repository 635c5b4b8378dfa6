"""Writing a record so that a crash at any moment leaves the old state or the whole new one.

The file is written under a temporary name, synced, renamed, and its folder synced. A record's last
use is its file's modification time, and a pinned record is read-only (mode 0400).
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Final

import mlx.core as mx
from anyclaude.mlx.kv_disk.record import DTYPES, RawArray
from anyclaude.mlx.kv_disk.values import RecordInfo
from anyclaude.runtime.paths import UnsafeFolderError, make_private_folder

TEMP_SUFFIX: Final = ".tmp"
PINNED_MODE: Final = 0o400
UNPINNED_MODE: Final = 0o600
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


class Point(Enum):
    """A step of writing at which a test may raise, kill the process, or inspect files."""

    EVICTED = auto()
    TEMP_CREATED = auto()
    HALF_WRITTEN = auto()
    WRITTEN = auto()
    FILE_SYNCED = auto()
    RENAMED = auto()
    FOLDER_SYNCED = auto()
    # A file that was marked for deletion is deleted.
    UNLINKED = auto()


Failpoint = Callable[[Point], None]


def pass_by(_point: Point) -> None:
    """The failpoint that does nothing."""


class FolderSyncError(Exception):
    """The record is complete under its name, but a power cut may still undo that."""


def write_record(
    path: Path, parts: Sequence[bytes | memoryview], info: RecordInfo, reach: Failpoint
) -> None:
    """Puts a record at `path`, in place of one that may be there.

    Raises:
        OSError: it could not be written; no part of it remains.
        FolderSyncError: it was written, but its name was not made durable.
    """
    make_folder(path.parent.parent)
    make_folder(path.parent)
    temp = path.with_name(f".{path.name}{TEMP_SUFFIX}")
    try:
        _write_temp(temp, parts, info, reach)
        temp.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
        raise
    try:
        reach(Point.RENAMED)
        sync_folder(path.parent)
        reach(Point.FOLDER_SYNCED)
    except OSError as error:
        raise FolderSyncError(str(error)) from error


def _write_temp(
    temp: Path, parts: Sequence[bytes | memoryview], info: RecordInfo, reach: Failpoint
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temp, flags, UNPINNED_MODE)
    try:
        reach(Point.TEMP_CREATED)
        write_all(descriptor, parts[0])
        reach(Point.HALF_WRITTEN)
        for part in parts[1:]:
            write_all(descriptor, part)
        reach(Point.WRITTEN)
        set_marks(descriptor, info)
        sync_file(descriptor)
        reach(Point.FILE_SYNCED)
    finally:
        os.close(descriptor)


def raw_arrays(arrays: Mapping[str, mx.array]) -> list[RawArray]:
    """Views of the arrays' bytes; each keeps its array's memory alive. MLX thread only."""
    flat = {name: _flat_bytes(array) for name, array in arrays.items()}
    mx.eval(*flat.values())
    return [
        # MLX's type stubs lack the buffer protocol.
        RawArray(name, _NAMES[array.dtype], tuple(array.shape), memoryview(flat[name]))  # type: ignore[arg-type]
        for name, array in arrays.items()
    ]


def _flat_bytes(array: mx.array) -> mx.array:
    if not array.size:
        return mx.zeros((0,), mx.uint8, stream=mx.cpu)
    # On the CPU, where these two calls do not copy.
    return mx.view(mx.reshape(array, (-1,), stream=mx.cpu), mx.uint8, stream=mx.cpu)


def mode_of(info: RecordInfo) -> int:
    return PINNED_MODE if info.pinned else UNPINNED_MODE


def set_marks(descriptor: int, info: RecordInfo) -> bool:
    """Writes last use and pin to a record's file; returns whether the pin changed."""
    used = round(info.last_use * 1e9)
    os.utime(descriptor, ns=(used, used))
    if os.fstat(descriptor).st_mode & 0o777 == mode_of(info):
        return False
    os.fchmod(descriptor, mode_of(info))
    return True


def update_marks(path: Path, info: RecordInfo) -> None:
    """As `set_marks`, for a record that is stored. A changed pin is durable afterwards."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if set_marks(descriptor, info):
            sync_file(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes one private and durable folder, or checks that the existing one is ours.

    Raises:
        OSError: it cannot be made, or is not ours.
    """
    is_new = not folder.is_dir()
    try:
        make_private_folder(folder)
    except UnsafeFolderError as error:
        raise PermissionError(str(error)) from error
    if is_new:
        sync_folder(folder.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def sync_file(descriptor: int) -> None:
    """Makes the bytes durable; macOS's own fsync stops at the drive's cache."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        # Network volumes do not support it.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
