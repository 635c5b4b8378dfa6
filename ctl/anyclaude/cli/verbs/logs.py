"""`anyclaudectl logs`: reads the daemon's log file, also while the daemon is down.

Each line of the log is a JSON object with `timestamp`, `level`, `logger`, `event` and other fields.
A line that is not JSON, such as the output of a native crash, counts as an error, so that no level
hides it.
"""

import json as json_module
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self, TextIO

import typer

from anyclaude.cli.command import SYSTEM_CLOCK, Clock, CommandError, ExitCode, own_paths

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_RAW_LEVEL: Final = "error"
_POLL_SECONDS: Final = 0.2
_SHOWN_APART: Final = frozenset({"timestamp", "level", "logger", "event", "exception"})


@dataclass(frozen=True)
class LogLine:
    """One line of the log; `fields` is None when the line is not a JSON object."""

    text: str
    fields: dict[str, Any] | None

    @classmethod
    def parse(cls, text: str) -> Self:
        text = text.rstrip("\n")
        try:
            value = json_module.loads(text)
        except ValueError:
            value = None
        return cls(text, value if isinstance(value, dict) else None)

    def is_at_least(self, level: str) -> bool:
        own = str((self.fields or {}).get("level", _RAW_LEVEL)).lower()
        return own not in LEVELS or LEVELS.index(own) >= LEVELS.index(level)

    def for_people(self) -> str:
        """Time, level and event, then the other fields; a traceback follows on its own lines."""
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


def _short(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json_module.dumps(value)


def last_lines(file: TextIO, count: int, level: str) -> list[LogLine]:
    """The newest `count` lines at `level` or above; leaves `file` at its end."""
    lines = map(LogLine.parse, file)
    return list(deque((line for line in lines if line.is_at_least(level)), maxlen=count))


def follow(path: Path, file: TextIO, clock: Clock = SYSTEM_CLOCK) -> Iterator[LogLine]:
    """Yields the lines that are appended from now on, for ever.

    After a rotation it opens the new file at `path`. It owns `file` and closes it at the end.
    """
    partial = ""
    try:
        while True:
            partial += file.readline()
            if partial.endswith("\n"):
                yield LogLine.parse(partial)
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
        # The old file is already renamed and the new one does not exist yet.
        return False
    return now.st_ino != os.fstat(file.fileno()).st_ino or now.st_size < file.tell()


def logs(
    count: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="Print at most this many lines.")
    ] = 50,
    follow_file: Annotated[
        bool, typer.Option("-f", "--follow", help="Keep printing new lines until Ctrl-C.")
    ] = False,
    level: Annotated[
        str, typer.Option(help=f"Only this level or above: {', '.join(LEVELS)}.")
    ] = "debug",
    json: Annotated[
        bool, typer.Option("--json", help="Print each line as one JSON object.")
    ] = False,
) -> None:
    """Show the newest lines of the log, also while the daemon is down."""
    if level not in LEVELS:
        raise typer.BadParameter(f"{level!r} is not a level; use one of {', '.join(LEVELS)}")
    path = own_paths().log_file
    with _open(path) as file:
        for line in last_lines(file, count, level):
            _print(line, json=json)
        for line in follow(path, file) if follow_file else ():
            if line.is_at_least(level):
                _print(line, json=json)


def _open(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise CommandError(
            ExitCode.NOT_FOUND,
            f"There is no log at {path}: no daemon has run with this home folder yet. "
            "See `anyclaudectl status`.",
        ) from None
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"The log {path} cannot be read: {error.strerror}."
        ) from None


def _print(line: LogLine, *, json: bool) -> None:
    text = json_module.dumps(line.as_document()) if json else line.for_people()
    print(text, flush=True)
