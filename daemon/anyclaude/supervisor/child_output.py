"""The output of a child: lines are read from its pipes and written to the daemon's log.

A full pipe (64 KiB) would block the child, so reading never waits: each line goes to a callback at
once, and a line without an end is cut.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from typing import Any, Final

import structlog

TAIL_BYTES: Final = 8 * 1024
MAX_LINE_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 64 * 1024

# Keys that our log processors set anew, and keys that would make structlog look for a traceback.
_OURS: Final = frozenset({"event", "level", "logger", "timestamp", "exc_info", "stack_info"})


class ChildLog:
    """Logs each stderr line under the child's name; `tail` is the last 8 KiB, unchanged."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tail = bytearray()

    @property
    def tail(self) -> str:
        return self._tail.decode(errors="replace")

    def line(self, line: bytes) -> None:
        self._tail += line + b"\n"
        del self._tail[:-TAIL_BYTES]
        event = _parse(line)
        if event is None:
            self._log_raw(line)
        else:
            self._relog(event)

    def _log_raw(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            _logger(self._name).warning("raw output", worker=self._name, text=text)

    def _relog(self, event: dict[str, Any]) -> None:
        fields = {key: value for key, value in event.items() if key not in _OURS}
        fields["worker"] = self._name
        level = logging.getLevelNamesMapping().get(str(event.get("level", "")).upper())
        logger = _logger(str(event.get("logger") or self._name))
        logger.log(level or logging.INFO, str(event["event"]), **fields)


def _logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


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
        """Reads what is left, then closes, even if another process still has the other end open."""
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
