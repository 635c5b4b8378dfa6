"""Lines from a child's pipe, read as they come and never left in the pipe.

A full pipe (64 KiB) would block the child, so reading never waits for anybody: lines go to a
callback at once, and one without an end is cut.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final

MAX_LINE_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 64 * 1024


class LinePipe:
    """Feeds each line of `fd`, without its end, to `on_line`; owns `fd`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, on_line: Callable[[bytes], None]
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._on_line = on_line
        self._rest = b""
        self._open = True
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def finish(self) -> None:
        """Takes what the writer left behind, then closes, whoever else may hold the other end."""
        while self._open and self._read():
            pass
        self._close()

    def _read(self) -> bool:
        """True when there may be more."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line)
        if len(self._rest) > MAX_LINE_BYTES:
            self._flush()
        return True

    def _flush(self) -> None:
        line, self._rest = self._rest, b""
        if line:
            self._on_line(line)

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._flush()
