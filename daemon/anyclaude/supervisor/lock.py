"""One daemon per home: the lock, and removing the sockets that a killed daemon left.

The lock is a flock: the kernel releases it however the daemon ends. The pid in the file is for
people only. The file is never removed, or a second daemon could lock a new file of the same name.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from anyclaude.runtime.paths import Paths

_CHILD_SOCKET: Final = re.compile(r"[a-z]+-(\d+)\.(sock|stream)")


class AlreadyRunningError(Exception):
    """Another daemon has the lock; the message gives its pid."""


@contextlib.contextmanager
def daemon_lock(file: Path) -> Iterator[None]:
    """The lock of the home, inside the `with` block.

    Raises:
        AlreadyRunningError: another daemon has the lock; nothing was changed.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(fd, file)
        try:
            yield
        finally:
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _acquire(fd: int, file: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        raise AlreadyRunningError(
            f"anyclauded already runs with pid {owner} on {file.parent}. "
            "Stop it with `anyclaudectl service stop`, or set ANYCLAUDE_HOME for a second one."
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())


def clear_stale(paths: Paths) -> int:
    """Removes the sockets of a killed daemon; only the holder of the lock may call this.

    Returns the first generation for new children. It is higher than every generation found: a
    child of the killed daemon may still be ending, and removes its own socket path when it does.
    """
    paths.control_socket.unlink(missing_ok=True)
    last = 0
    # Nothing is found if somebody removed the folder.
    for path in paths.run.glob("*"):
        match = _CHILD_SOCKET.fullmatch(path.name)
        if match:
            last = max(last, int(match[1]))
            path.unlink(missing_ok=True)
    return last + 1
