"""What a benchmark measured: rows of samples, kept as a JSON file and compared with another run."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from anyclaude.cli.units import format_bytes, format_seconds

# Two medians whose samples overlap differ by noise, unless the ratio is larger than this.
NOISE_RATIO: Final = 1.1


class Unit(StrEnum):
    SECONDS = "seconds"
    BYTES = "bytes"


@dataclass(frozen=True)
class Row:
    """All samples of one measurement; token counts are those of the last sample."""

    test: str
    name: str
    unit: Unit
    samples: tuple[float, ...]
    prompt_tokens: int = 0
    reused_tokens: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def shown(self, value: float) -> str:
        if self.unit is Unit.BYTES:
            return format_bytes(round(value))
        return f"{value * 1000:.1f} ms" if value < 1 else format_seconds(value)

    @property
    def spread(self) -> str:
        """The smallest and the largest sample."""
        return f"{self.shown(min(self.samples))} to {self.shown(max(self.samples))}"


@dataclass(frozen=True)
class Report:
    """One run: where it was measured, with what, and its rows."""

    base_url: str
    model: str
    machine: str
    time: str
    rows: tuple[Row, ...]

    def row(self, test: str, name: str) -> Row | None:
        return next((row for row in self.rows if (row.test, row.name) == (test, name)), None)

    def document(self) -> dict[str, Any]:
        rows = [asdict(row) | {"median": row.median} for row in self.rows]
        return asdict(self) | {"rows": rows}


def load(file: Path) -> Report:
    """Reads what `--json` printed.

    Raises:
        ValueError: the file is none of ours.
        OSError: it cannot be read.
    """
    try:
        document = json.loads(file.read_text())
        fields = {name: document[name] for name in ("base_url", "model", "machine", "time")}
        return Report(**fields, rows=tuple(map(_row, document["rows"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is not a result of `anyclaudectl bench --json`: {error}"
        ) from None


def _row(entry: Mapping[str, Any]) -> Row:
    samples = tuple(map(float, entry["samples"]))
    if not samples:
        raise ValueError(f"{entry['name']} has no samples")
    counts = (int(entry[name]) for name in ("prompt_tokens", "reused_tokens"))
    return Row(entry["test"], entry["name"], Unit(entry["unit"]), samples, *counts)


class Verdict(StrEnum):
    """How a later median compares with an earlier one. Less is better in every unit."""

    BETTER = "better"
    SAME = "within noise"
    WORSE = "worse"


@dataclass(frozen=True)
class Change:
    before: Row
    after: Row

    @property
    def ratio(self) -> float | None:
        """The second median over the first; None if the first is zero."""
        return self.after.median / self.before.median if self.before.median else None

    @property
    def verdict(self) -> Verdict:
        """SAME if the samples overlap or the medians differ by less than NOISE_RATIO."""
        low, high = sorted((self.before, self.after), key=lambda row: row.median)
        overlap = max(low.samples) >= min(high.samples)
        if overlap or high.median <= low.median * NOISE_RATIO:
            return Verdict.SAME
        return Verdict.WORSE if high is self.after else Verdict.BETTER


def compare(before: Report, after: Report) -> Sequence[Change]:
    """The rows that both runs have, in the order of the first."""
    pairs = ((row, after.row(row.test, row.name)) for row in before.rows)
    return [Change(row, other) for row, other in pairs if other and other.unit is row.unit]
