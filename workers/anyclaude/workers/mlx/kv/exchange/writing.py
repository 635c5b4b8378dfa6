"""Writing an export file: beside its place, to the last byte, then into it."""

import os
import tempfile
from pathlib import Path

from anyclaude.workers.mlx.kv.disk.writing import PreparedRecord, sync_file, sync_folder, write_all
from anyclaude.workers.mlx.kv.exchange.faults import ExchangeError, Fault
from anyclaude.workers.mlx.kv.exchange.layout import (
    END_TAG,
    FRAME,
    SEGMENT_TAG,
    ExportHeader,
    encode_head,
)


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
        # Made with mode 0600.
        self._descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".anyclaude-export-")
        self._temp = Path(name)
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
        self._close()
        self._temp.replace(self._path)
        sync_folder(self._path.parent)
        return nbytes

    def abandon(self) -> None:
        """Takes back what is not finished; does nothing to what is."""
        self._close()
        self._temp.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)
