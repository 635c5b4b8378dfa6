"""The daemon's own log file: JSON, rotated, private.

Ours, because launchd opens its log path once and never lets go of a rotated file.
"""

import contextlib
import io
import logging
import logging.handlers
import os
from collections.abc import Iterator
from pathlib import Path

from anyclaude.runtime import logs
from anyclaude.runtime.settings import LogSettings


class PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """A rotating file that only its owner may read, the rotated ones included."""

    def _open(self) -> io.TextIOWrapper:
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return io.TextIOWrapper(io.FileIO(file, "a"), self.encoding, write_through=True)


@contextlib.contextmanager
def attached(file: Path, settings: LogSettings) -> Iterator[None]:
    """Sends every record of this process to `file` as well."""
    handler = PrivateRotatingFile(
        file,
        maxBytes=settings.file_max_bytes,
        backupCount=settings.file_count,
        encoding="utf-8",
    )
    handler.setFormatter(logs.formatter(pretty=False))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
