"""Tables: plain columns in a pipe, drawn on a terminal."""

import io
import sys

import pytest

from anyclaude.cli.output import Cell, Tone, facts, plain, table


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """Makes standard output a terminal of 80 columns that knows colours."""
    screen = _Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return screen


_ROW = ("mlx", Cell("fatal", Tone.BAD), "code 69: the folder [/m] is missing " + "x" * 60)


def test_plain_columns_align() -> None:
    """Columns are aligned left or right, and lines have no trailing blanks."""
    assert plain([("A", "NUMBER"), ("long", "1"), ("b", "")], right=(1,)) == [
        "A     NUMBER",
        "long       1",
        "b",
    ]


def test_pipes_see_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a table is plain text with whole lines."""
    table(("NAME", "STATE", "WHY"), [_ROW])
    facts([("Mode", "mlx-lm")])

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "x" * 60 in out
    assert "Mode  mlx-lm" in out


def test_terminal_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal states are coloured, and only the last column wraps, within the width."""
    terminal = _terminal(monkeypatch)

    table(("NAME", "STATE", "WHY"), [_ROW])

    out = terminal.getvalue()
    assert "\x1b[1;31mfatal" in out
    # Square brackets are text, not markup.
    assert "[/m]" in out
    plain_lines = [
        line.replace("\x1b[1;31m", "").replace("\x1b[0m", "") for line in out.split("\n")
    ]
    assert max(len(line.replace("\x1b[1m", "")) for line in plain_lines) <= 80


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR removes the colours."""
    terminal = _terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")

    table(("NAME", "STATE", "WHY"), [_ROW])

    assert "\x1b[1;31m" not in terminal.getvalue()
    assert "31m" not in terminal.getvalue()
