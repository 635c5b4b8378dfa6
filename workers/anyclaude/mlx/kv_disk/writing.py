"""Writing a record so that a crash at any moment leaves the old state or the whole new one."""

import contextlib
import fcntl
import os
from pathlib import Path

from anyclaude.mlx.kv_disk.failpoints import Failpoint, Point
from anyclaude.mlx.kv_disk.record import Header, RawArray, chunks, encode_header
from anyclaude.runtime.paths import UnsafeFolderError, make_private_folder

TEMP_SUFFIX = ".tmp"


class FolderSyncError(Exception):
    """The record is complete under its name, but a power cut may still undo that."""


class PreparedRecord:
    """A record whose bytes are decided: its size is known before anything is written."""

    def __init__(self, header: Header, arrays: list[RawArray]) -> None:
        self.header = header
        self._head = encode_header(header)
        self._arrays = arrays
        self.nbytes = len(self._head) + header.data_bytes

    def write(self, path: Path, reach: Failpoint) -> None:
        """Puts the record at `path`, in place of one that may be there.

        Raises:
            OSError: it could not be written; no part of it is left behind.
            FolderSyncError: it was written, its name was not made durable.
        """
        make_folder(path.parent.parent)
        make_folder(path.parent)
        temp = path.with_name(f".{path.name}{TEMP_SUFFIX}")
        try:
            self._write_temp(temp, reach)
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

    def write_into(self, descriptor: int) -> None:
        """Puts the record's bytes where an open file stands."""
        write_all(descriptor, memoryview(self._head))
        self._write_data(descriptor)

    def _write_temp(self, temp: Path, reach: Failpoint) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temp, flags, 0o600)
        try:
            reach(Point.TEMP_CREATED)
            write_all(descriptor, memoryview(self._head))
            reach(Point.HALF_WRITTEN)
            self._write_data(descriptor)
            reach(Point.WRITTEN)
            sync_file(descriptor)
            reach(Point.FILE_SYNCED)
        finally:
            os.close(descriptor)

    def _write_data(self, descriptor: int) -> None:
        end = 0
        for header, array in zip(self.header.arrays, self._arrays, strict=True):
            write_all(descriptor, memoryview(bytes(header.offset - end)))
            for chunk in chunks(array.data):
                write_all(descriptor, chunk)
            end = header.offset + header.nbytes


def make_folder(folder: Path) -> None:
    """Makes one folder, private and durable, or checks that the one there is ours.

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


def write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def sync_file(descriptor: int) -> None:
    """Asks for the bytes to be on the medium; macOS's own fsync stops at the drive's cache."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        # Network volumes do not know it.
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
