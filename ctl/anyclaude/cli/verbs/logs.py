"""`anyclaudectl logs`: the daemon's log file, also when the daemon is down."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from anyclaude.cli.exits import CommandError, ExitCode
from anyclaude.cli.logfile import LEVELS, LogLine, follow, last_lines

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO


def logs(
    count: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="The newest this many lines.")
    ] = 50,
    follow_file: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is appended, until Ctrl-C.")
    ] = False,
    level: Annotated[
        str, typer.Option(help=f"This level or above: {', '.join(LEVELS)}.")
    ] = "debug",
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, a stream.")
    ] = False,
) -> None:
    """Show the newest lines of the log."""
    if level not in LEVELS:
        raise typer.BadParameter(f"{level!r} is no level; use one of {', '.join(LEVELS)}")
    path = _path()
    file = _open(path)
    try:
        for line in last_lines(file, count, level):
            _print(line, json=json)
        if follow_file:
            for line in follow(path, file):
                if line.is_at_least(level):
                    _print(line, json=json)
    finally:
        file.close()


def _path() -> "Path":
    from anyclaude.runtime.paths import find_paths

    return find_paths(os.environ).log_file


def _open(path: "Path") -> "TextIO":
    try:
        return path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise CommandError(
            ExitCode.NOT_FOUND,
            f"There is no log at {path} yet: no daemon has run under this home. "
            "See `anyclaudectl status`.",
        ) from None
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"The log {path} cannot be read: {error.strerror}."
        ) from None


def _print(line: LogLine, *, json: bool) -> None:
    if json:
        from json import dumps

        print(dumps(line.as_document()), flush=True)
    else:
        print(line.for_people(), flush=True)
