"""The daemon's log file, read without the daemon: its lines, their levels, and what is appended.

A line is one JSON object with `timestamp`, `level`, `logger`, `event` and anything else; a line
that is none (a native crash) counts as an error, since it is what somebody looks for.
"""

import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from anyclaude.cli.clock import SYSTEM_CLOCK, Clock

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_RAW_LEVEL: Final = "error"
_POLL_SECONDS: Final = 0.2
_SHOWN_APART: Final = frozenset({"timestamp", "level", "logger", "event", "exception"})


@dataclass(frozen=True)
class LogLine:
    """One line of the log."""

    text: str
    # None when the line is not a JSON object.
    fields: dict[str, Any] | None

    def is_at_least(self, level: str) -> bool:
        own = str((self.fields or {}).get("level", _RAW_LEVEL)).lower()
        return own not in LEVELS or LEVELS.index(own) >= LEVELS.index(level)

    def for_people(self) -> str:
        """Time, level, event, then what belongs to it."""
        if self.fields is None:
            return self.text
        fields = self.fields
        rest = " ".join(f"{k}={_short(v)}" for k, v in fields.items() if k not in _SHOWN_APART)
        level = str(fields.get("level", ""))
        head = f"{fields.get('timestamp', '')} {level:<8} {fields.get('event', '')}"
        trace = f"\n{fields['exception']}" if fields.get("exception") else ""
        return f"{head}  {rest}".rstrip() + trace

    def as_document(self) -> dict[str, Any]:
        return {"event": self.text, "level": _RAW_LEVEL} if self.fields is None else self.fields


def parse(text: str) -> LogLine:
    text = text.rstrip("\n")
    try:
        value = json.loads(text)
    except ValueError:
        return LogLine(text, None)
    return LogLine(text, value if isinstance(value, dict) else None)


def last_lines(file: TextIO, count: int, level: str) -> list[LogLine]:
    """The newest `count` lines at `level` or above; leaves `file` at its end."""
    return list(deque((line for line in map(parse, file) if line.is_at_least(level)), maxlen=count))


def follow(path: Path, file: TextIO, clock: Clock = SYSTEM_CLOCK) -> Iterator[LogLine]:
    """Lines appended from now on, for ever; goes over to the new file after a rotation.

    Takes `file` over: it is closed when the iteration ends.
    """
    partial = ""
    try:
        while True:
            partial += file.readline()
            if partial.endswith("\n"):
                yield parse(partial)
                partial = ""
            elif _was_replaced(path, file):
                file.close()
                file = path.open(encoding="utf-8", errors="replace")
                partial = ""
            else:
                clock.sleep(_POLL_SECONDS)
    finally:
        file.close()


def _was_replaced(path: Path, file: TextIO) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        # Between the two steps of a rotation.
        return False
    return now.st_ino != _inode(file) or now.st_size < file.tell()


def _inode(file: TextIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _short(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value)
