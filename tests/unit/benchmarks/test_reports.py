"""What the benchmarks of faults and memory conclude, and write into a page."""

from pathlib import Path

import pytest

from benchmarks import faults, soak_report
from benchmarks.soak_report import Life, Sample
from tests.faults.disturbed import Result

MB = 1_000_000


def life(*, growth_bytes: int = 0, more_descriptors: int = 0) -> Life:
    """A process of one minute that grows in the last two thirds of its life."""
    before = [Sample(second, 100 * MB, 0, 20) for second in range(20)]
    after = [
        Sample(second, 100 * MB + growth_bytes, 0, 20 + more_descriptors)
        for second in range(20, 61)
    ]
    return Life("mlx", before + after)


@pytest.mark.parametrize(
    ("lived", "verdicts"),
    [
        (life(growth_bytes=3 * MB, more_descriptors=1), 0),
        (life(growth_bytes=5 * MB), 1),
        (life(growth_bytes=5 * MB, more_descriptors=2), 2),
    ],
)
def test_a_process_that_grows_is_named(lived: Life, verdicts: int) -> None:
    """Memory may differ by 4 MB and descriptors by one; more is a verdict each."""
    grown = soak_report.judge([lived], minutes=1)

    assert len(grown) == verdicts
    assert all("mlx" in verdict for verdict in grown)


def test_a_short_life_is_not_judged() -> None:
    """A process that was killed early has no time to warm up."""
    assert soak_report.judge([life(growth_bytes=50 * MB)], minutes=5) == []


def test_rows_of_other_processes_stay(tmp_path: Path) -> None:
    """A run of one process replaces its row of the page, and adds one that is missing."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- make faults -->\n<!-- make faults: end -->\nafter\n")
    rows = {
        name: faults._row(name, 1, Result(kills=kills, recovery_seconds=[1.0]))
        for name, kills in (("mlx", 1), ("relay", 2))
    }
    faults._write(page, list(rows.values()))
    anew = faults._row("mlx", 2, Result(kills=3, recovery_seconds=[2.0]))
    faults._write(page, [anew])

    text = page.read_text()
    assert anew in text
    assert rows["relay"] in text
    assert rows["mlx"] not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
