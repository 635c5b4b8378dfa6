"""Sizes and durations, read and written."""

import pytest

from anyclaude.cli.units import counted, format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1234", 1234),
        ("2GB", 2_000_000_000),
        ("1.5g", 1_500_000_000),
        ("512 MiB", 512 * 2**20),
        ("1kb", 1000),
        ("10B", 10),
    ],
)
def test_sizes_are_read(text: str, count: int) -> None:
    """Decimal and binary units, with and without the B, in either case."""
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "2XB", "-1", "1e9", "2 GB please"])
def test_wrong_sizes_are_refused(text: str) -> None:
    """An invalid size is refused with a valid example."""
    with pytest.raises(ValueError, match="2GB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """Seconds to weeks; a bare number is seconds."""
    assert parse_seconds(text) == seconds


def test_wrong_durations_are_refused() -> None:
    """An invalid duration is refused with a valid example."""
    with pytest.raises(ValueError, match="2h"):
        parse_seconds("soon")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (5_000_000_000, "5.0 GB"),
        (2 * 10**15, "2000.0 TB"),
    ],
)
def test_sizes_are_written(count: int, text: str) -> None:
    """Sizes have one decimal and at most three digits before it."""
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.314, "0.31 s"),
        (45.2, "45 s"),
        (200, "3m 20s"),
        (7500, "2h 5m"),
        (360_000, "4d 4h"),
        (9.999, "10 s"),
        (59.9, "1m 0s"),
    ],
)
def test_durations_are_written(seconds: float, text: str) -> None:
    """Durations have their two largest units."""
    assert format_seconds(seconds) == text


def test_one_is_singular() -> None:
    """One segment, and no or two segments."""
    assert [counted(number, "segment") for number in (0, 1, 2)] == [
        "0 segments",
        "1 segment",
        "2 segments",
    ]
