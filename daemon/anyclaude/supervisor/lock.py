"""One daemon per home: a flock held for life, which the kernel releases however the daemon ends.

The pid inside is information for people; the lock alone decides. The file is never removed: a
second daemon could otherwise lock a file that the first no longer sees.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class AlreadyRunningError(Exception):
    """Another daemon holds the lock; the message names it."""


class DaemonLock:
    """Held from `__enter__` to `__exit__`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1

    def __enter__(self) -> "DaemonLock":
        """Takes the lock.

        Raises:
            AlreadyRunningError: it is taken; nothing was touched.
        """
        self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise AlreadyRunningError(
                f"anyclauded already runs with pid {owner} on {self._file.parent}. "
                "Stop it with `anyclaudectl service stop`, or set ANYCLAUDE_HOME for a second one."
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
