"""What a command prints: one JSON document, or tables for people.

On a terminal, rich draws the tables and honours NO_COLOR. Anywhere else they are plain columns: a
pipe never gets an escape sequence, and the command saves the time of importing rich.
"""

import json as json_module
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Changes when a key is renamed, removed or changes its meaning; new keys do not change it.
SCHEMA_VERSION: Final = 1
_GAP: Final = "  "

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Tone(StrEnum):
    """The colour of a cell on a terminal, as a style name of rich."""

    PLAIN = ""
    GOOD = "green"
    WARN = "yellow"
    BAD = "bold red"
    DIM = "dim"


@dataclass(frozen=True)
class Cell:
    """The text of one table cell, and its tone."""

    text: str
    tone: Tone = Tone.PLAIN


Row = Sequence[str | Cell]


def emit(document: Mapping[str, Any]) -> None:
    """Prints the one JSON document of a `--json` run."""
    print(
        json_module.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2, allow_nan=False)
    )


def report(document: Mapping[str, Any], sentence: str, *, json: bool) -> None:
    """Prints the result of a command: the document for `--json`, the sentence for people."""
    if json:
        emit(document)
    else:
        print(sentence)


def note(text: str) -> None:
    """Prints a message to standard error: it is not part of the command's data."""
    print(text, file=sys.stderr)


def table(titles: Sequence[str], rows: Sequence[Row], right: Collection[int] = ()) -> None:
    """Prints rows under titles; columns whose index is in `right` are right-aligned."""
    if sys.stdout.isatty():
        _draw(titles, rows, right)
    else:
        for line in plain([titles, *rows], right):
            print(line)


def facts(pairs: Sequence[tuple[str, str | Cell]]) -> None:
    """Prints names beside their values."""
    if sys.stdout.isatty():
        _draw((), [(Cell(name, Tone.DIM), value) for name, value in pairs], ())
    else:
        for line in plain(pairs, ()):
            print(line)


def plain(rows: Sequence[Row], right: Collection[int]) -> list[str]:
    """Rows as lines of aligned columns."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    return [
        _GAP.join(
            text.rjust(width) if index in right else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def _draw(titles: Sequence[str], rows: Sequence[Row], right: Collection[int]) -> None:
    from rich.table import Table

    count = len(titles) or 2
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(titles))
    for index in range(count):
        # Only the last column wraps, so that the others stay readable at 80 columns.
        drawn.add_column(
            titles[index] if titles else "",
            justify="right" if index in right else "left",
            no_wrap=index < count - 1,
            header_style="bold",
        )
    for row in rows:
        drawn.add_row(*(_rich(cell) for cell in row))
    _console().print(drawn)


def _rich(cell: str | Cell) -> "Text":
    from rich.text import Text

    return Text(cell.text, style=cell.tone) if isinstance(cell, Cell) else Text(cell)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)
