"""Results of `anyclaudectl bench`: read back from their file, and compared."""

import json
from pathlib import Path

import pytest

from anyclaude.cli.bench.figures import Report, Row, Unit, Verdict, compare, load


def _report(*rows: Row) -> Report:
    return Report("http://127.0.0.1:1", "model", "machine", "2026-01-01T00:00:00+00:00", rows)


def _row(*samples: float, name: str = "query 1", unit: Unit = Unit.SECONDS) -> Row:
    return Row("1 session", name, unit, samples, 2_000, 1_900)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every field survives the JSON document."""
    report = _report(_row(0.5, 0.7), _row(1e6, name="caches", unit=Unit.BYTES))
    file = tmp_path / "result.json"
    file.write_text(json.dumps(report.document()))

    assert load(file) == report


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps(_report(_row(1.0)).document() | {"rows": [{"test": "1"}]})]
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    """The error names the file and the command that writes such files."""
    file = tmp_path / "other.json"
    file.write_text(text)

    with pytest.raises(ValueError, match=r"other\.json.*bench --json"):
        load(file)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((1.0, 1.1, 1.2), (2.0, 2.1, 2.2), Verdict.WORSE),
        ((2.0, 2.1, 2.2), (1.0, 1.1, 1.2), Verdict.BETTER),
        # The samples overlap.
        ((1.0, 1.1, 2.5), (2.0, 2.1, 2.2), Verdict.SAME),
        # They do not, but the medians differ by a twentieth only.
        ((1.0, 1.0, 1.0), (1.05, 1.05, 1.05), Verdict.SAME),
        ((0.0,), (0.0,), Verdict.SAME),
    ],
)
def test_a_difference_counts_only_beyond_noise(before, after, verdict: Verdict) -> None:
    """Medians differ if no sample of one run lies among those of the other."""
    (change,) = compare(_report(_row(*before)), _report(_row(*after)))

    assert change.verdict is verdict


def test_only_rows_of_both_runs_are_compared() -> None:
    """A row that one run lacks, or has in another unit, is left out."""
    before = _report(_row(1.0), _row(1.0, name="gone"), _row(1.0, name="changed"))
    after = _report(_row(2.0), _row(1.0, name="new"), _row(1.0, name="changed", unit=Unit.BYTES))
    (change,) = compare(before, after)

    assert (change.before.name, change.ratio) == ("query 1", 2.0)
    assert compare(_report(_row(0.0)), _report(_row(1.0)))[0].ratio is None
