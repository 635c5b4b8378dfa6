"""Sockets that a daemon which was killed left behind. Only for the holder of the lock."""

import re
from typing import Final

from anyclaude.runtime.paths import Paths

_CHILD_SOCKET: Final = re.compile(r"[a-z]+-(\d+)\.(sock|stream)")


def clear_stale(paths: Paths) -> int:
    """Removes them; returns a first generation that no process of that daemon ever used.

    One of its children may be ending right now and remove its own path when it does, which must
    not be the path of a child of ours.
    """
    paths.control_socket.unlink(missing_ok=True)
    last = 0
    for path in paths.run.iterdir():
        match = _CHILD_SOCKET.fullmatch(path.name)
        if match:
            last = max(last, int(match[1]))
            path.unlink(missing_ok=True)
    return last + 1
