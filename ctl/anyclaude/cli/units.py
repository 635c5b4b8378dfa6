"""Bytes, durations and counts as people write and read them.

kB, MB and GB are decimal, as macOS shows them (1 GB is 1,000,000,000 bytes); KiB, MiB and GiB are
binary.
"""

import re
from typing import Final

_DECIMAL: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY: Final = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER_AND_UNIT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Reads "2GB", "512MiB", "1.5g" or a plain number of bytes.

    Raises:
        ValueError: the message shows valid values.
    """
    number, unit = _split(text)
    factor = (_DECIMAL | _BINARY).get(unit.removesuffix("b"))
    if factor is None or number is None:
        raise ValueError(f"{text!r} is not a size; write e.g. 2GB, 512MiB or 0")
    return int(number * factor)


def parse_seconds(text: str) -> float:
    """Reads "90s", "30m", "2h", "7d", "1w" or a plain number of seconds.

    Raises:
        ValueError: the message shows valid values.
    """
    number, unit = _split(text)
    factor = _SECONDS.get(unit)
    if factor is None or number is None:
        raise ValueError(f"{text!r} is not a duration; write e.g. 90s, 30m, 2h or 7d")
    return number * factor


def format_bytes(count: int) -> str:
    """1234567 as "1.2 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def counted(number: int, noun: str) -> str:
    """1 and "segment" as "1 segment", 2 as "2 segments"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_seconds(seconds: float) -> str:
    """Prints the two largest units: "0.31 s", "45 s", "3m 20s", "2h 5m", "4d 3h"."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def _split(text: str) -> tuple[float | None, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    return (float(match[1]), match[2].lower()) if match else (None, "")
