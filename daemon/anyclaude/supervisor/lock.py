"""One daemon per home: the lock, and removing the sockets that a killed daemon left.

The lock is a flock: the kernel releases it however the daemon ends. The pid in the file is for
people only. The file is never removed, or a second daemon could lock a new file of the same name.
"""

import fcntl
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Final

from anyclaude.runtime.paths import Paths

_CHILD_SOCKET: Final = re.compile(r"[a-z]+-(\d+)\.(sock|stream)")


class AlreadyRunningError(Exception):
    """Another daemon has the lock; the message gives its pid."""


class DaemonLock:
    """The lock is ours inside the `with` block."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1

    def __enter__(self) -> "DaemonLock":
        """
        Raises:
            AlreadyRunningError: another daemon has the lock; nothing was changed.
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


def clear_stale(paths: Paths) -> int:
    """Removes the sockets of a killed daemon; only the holder of the lock may call this.

    Returns the first generation for new children. It is higher than every generation found: a
    child of the killed daemon may still be ending, and removes its own socket path when it does.
    """
    paths.control_socket.unlink(missing_ok=True)
    last = 0
    for path in paths.run.iterdir():
        match = _CHILD_SOCKET.fullmatch(path.name)
        if match:
            last = max(last, int(match[1]))
            path.unlink(missing_ok=True)
    return last + 1
