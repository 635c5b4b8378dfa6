"""Writing an export file: beside its place, to the last byte, then into it.

While it is written it is locked. One that is not, its writer was killed: the next export into the
folder removes it.
"""

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

from anyclaude.mlx.kv_disk.exchange.faults import ExchangeError, Fault
from anyclaude.mlx.kv_disk.exchange.layout import (
    END_TAG,
    FRAME,
    SEGMENT_TAG,
    ExportHeader,
    encode_head,
)
from anyclaude.mlx.kv_disk.writing import PreparedRecord, sync_file, sync_folder, write_all

_TEMP_PREFIX: Final = ".anyclaude-export-"


class ExportWriter:
    """One file being written; readable by its owner alone, since it holds what was said.

    Its methods raise OSError when the disk refuses; `abandon` then leaves nothing behind.
    """

    def __init__(self, path: Path, header: ExportHeader, *, overwrite: bool) -> None:
        """Raises ExchangeError if there is a file already, and OSError if there can be none."""
        if path.exists() and not overwrite:
            raise ExchangeError(
                Fault.REFUSED, f"{path} is there already. Choose another name, or give --force."
            )
        if path.is_dir():
            raise ExchangeError(Fault.REFUSED, f"{path} is a folder. Name a file in it.")
        self._path = path
        _remove_leftovers(path.parent)
        self._descriptor, self._temp = _locked_temp(path.parent)
        self._segments = 0
        self._is_open = True
        try:
            write_all(self._descriptor, memoryview(encode_head(header)))
        except OSError:
            self.abandon()
            raise

    def add(self, record: PreparedRecord) -> None:
        write_all(self._descriptor, memoryview(FRAME.pack(SEGMENT_TAG, record.nbytes)))
        record.write_into(self._descriptor)
        self._segments += 1

    def finish(self) -> int:
        """Puts the file in its place; returns its bytes."""
        write_all(self._descriptor, memoryview(FRAME.pack(END_TAG, self._segments)))
        sync_file(self._descriptor)
        nbytes = os.fstat(self._descriptor).st_size
        # Before it is unlocked.
        self._temp.replace(self._path)
        self._close()
        sync_folder(self._path.parent)
        return nbytes

    def abandon(self) -> None:
        """Takes back what is not finished; does nothing to what is."""
        self._temp.unlink(missing_ok=True)
        self._close()

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
            # A file system without locks: nobody can take it for a leftover there.
            is_ours = True
        if is_ours and os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        # Somebody who looked for leftovers was faster.
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(_TEMP_PREFIX + "*"):
        # Gone meanwhile, or another user's.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """False where another writer holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
