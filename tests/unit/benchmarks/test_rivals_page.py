"""docs/performance.md says who is ahead, by how much, and who failed."""

from pathlib import Path

import pytest

from benchmarks.rivals.page import OURS, Run, write
from benchmarks.rivals.rounds import Results, Sample, Setting

_SETTING = Setting("small", {}, 1_000, 3, 8, 8)


def _page(folder: Path, results: Results) -> str:
    versions = {OURS: "1", "fast": "2", "broken": "did not start"}
    run = Run("machine", "2026-01-01", "One BLAS.", (0.1, 0.2), versions)
    write(folder / "page.md", run, [(_SETTING, results)])
    return (folder / "page.md").read_text()


def _add(results: Results, row: str, server: str, *values: float) -> None:
    for value in values:
        results.add(row, server, Sample(value, value / 2))


@pytest.fixture
def results() -> Results:
    results = Results()
    _add(results, "cold", OURS, 1.0, 1.1, 1.2)
    _add(results, "cold", "fast", 0.1, 0.2, 0.3)
    _add(results, "next turn", OURS, 0.010, 0.011, 0.030)
    _add(results, "next turn", "fast", 0.009, 0.010, 0.012)
    _add(results, "decode, 1 stream", OURS, 100.0, 110.0)
    _add(results, "decode, 1 stream", "fast", 50.0, 60.0)
    results.failures["broken"] = ["no port"]
    return results


def test_the_best_median_is_bold_whatever_is_better(tmp_path: Path, results: Results) -> None:
    """Less time and more speed are better; each cell has its range."""
    page = _page(tmp_path, results)

    assert "| cold | 1.10 s (1.00 s to 1.20 s) | **200.0 ms** (100.0 ms to 300.0 ms) |" in page
    assert (
        "| decode, 1 stream | **105/s** (100/s to 110/s) | 55/s (50/s to 60/s) | failed |" in page
    )


def test_rows_where_we_are_behind_are_named(tmp_path: Path, results: Results) -> None:
    """A row counts as behind if the ranges do not overlap, and only then."""
    page = _page(tmp_path, results)

    assert "- cold: fast, 200.0 ms against 1.10 s" in page
    assert "- next turn" not in page
    assert "- decode" not in page


def test_one_round_says_nothing_about_who_is_ahead(tmp_path: Path) -> None:
    """A single sample has no spread."""
    results = Results()
    _add(results, "cold", OURS, 1.0)
    _add(results, "cold", "fast", 0.1)
    page = _page(tmp_path, results)

    assert "- cold" not in page
    assert "no spread" in page


def test_failures_have_their_reason(tmp_path: Path, results: Results) -> None:
    """The page names the server, how often it failed, and why."""
    assert "broken failed 1 time, first with: `no port`" in _page(tmp_path, results)


def test_each_kind_of_row_has_its_picture(tmp_path: Path, results: Results) -> None:
    """The pictures are beside the page, which shows them."""
    page = _page(tmp_path, results)

    for name in ("performance-1-first-token.svg", "performance-1-decode.svg"):
        assert f"({name})" in page
        assert "fast" in (tmp_path / name).read_text()
