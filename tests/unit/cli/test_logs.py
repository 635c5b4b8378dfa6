"""Lines of the log file: parsed, filtered, and followed through rotations."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from anyclaude.cli.command import Clock
from anyclaude.cli.verbs.logs import LogLine, follow, last_lines


def _line(event: str, level: str = "info") -> str:
    return json.dumps({"event": event, "level": level}) + "\n"


def _acting(*actions: Callable[[], object]) -> Clock:
    """A clock whose `sleep` runs the next action."""
    pending = iter(actions)

    def sleep(_: float) -> None:
        next(pending)()

    return Clock(now=lambda: 0.0, sleep=sleep)


def test_line_for_people() -> None:
    """A line shows time, level and event, then the rest, then a traceback on lines of its own."""
    line = LogLine.parse(
        '{"timestamp": "T", "level": "error", "event": "it broke", "a": 1, "b": "c d",'
    )
    assert line.fields is None
    line = LogLine.parse(
        '{"timestamp": "T", "level": "error", "event": "it broke", "a": 1, "b": "c d",'
        ' "exception": "Traceback"}'
    )

    assert line.for_people() == 'T error    it broke  a=1 b="c d"\nTraceback'


@pytest.mark.parametrize(
    ("text", "level", "shown"),
    [
        (_line("x", "debug"), "info", False),
        (_line("x", "critical"), "error", True),
        (_line("x", "strange"), "error", True),
        ("Fatal Python error\n", "error", True),
        ("[1, 2]\n", "error", True),
    ],
)
def test_levels(text: str, level: str, shown: bool) -> None:
    """Raw text and unknown levels are never hidden."""
    assert LogLine.parse(text).is_at_least(level) is shown


def test_last_lines_counts_after_the_filter(tmp_path: Path) -> None:
    """The newest N lines are counted after the filter."""
    log = tmp_path / "log"
    log.write_text(_line("a", "error") + _line("b") + _line("c", "error") + _line("d"))

    with log.open() as file:
        found = last_lines(file, 2, "error")

    assert [line.as_document()["event"] for line in found] == ["a", "c"]


def test_follow_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    """An incomplete line is not shown."""
    log = tmp_path / "log"
    log.touch()
    whole = _line("whole")

    def append(text: str) -> Callable[[], object]:
        def write() -> None:
            with log.open("a") as file:
                file.write(text)

        return write

    with log.open() as file:
        lines = follow(log, file, _acting(append(whole[:5]), append(whole[5:])))
        assert next(lines).as_document()["event"] == "whole"
        lines.close()


def test_follow_goes_on_after_rotation_and_truncation(tmp_path: Path) -> None:
    """A renamed, a missing and a truncated file are followed."""
    log = tmp_path / "log"
    log.write_text(_line("before"))
    clock = _acting(
        lambda: log.rename(tmp_path / "log.1"),
        lambda: log.write_text(_line("rotated, and longer than what follows")),
        lambda: log.write_text(_line("cut")),
    )
    file = log.open()
    file.read()

    lines = follow(log, file, clock)
    events = [next(lines).as_document()["event"] for _ in range(2)]
    lines.close()

    assert events == ["rotated, and longer than what follows", "cut"]
