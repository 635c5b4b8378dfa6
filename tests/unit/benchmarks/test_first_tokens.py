"""The table of README.md comes from `anyclaudectl bench`, in the words of the command's tests."""

from dataclasses import replace

from anyclaude.cli.bench.figures import Report, Row, Unit
from benchmarks.first_tokens import CASES, SECTION, page
from benchmarks.pages import section
from tests.checkout import ROOT


def _seconds(test: str, name: str, *samples: float) -> Row:
    return Row(test, name, Unit.SECONDS, samples, prompt_tokens=4_050)


_REPORT = Report(
    "http://127.0.0.1:1",
    "small",
    "Linux x86_64, 2 cores",
    "2026-01-01",
    (
        _seconds("1 session", "no instructions", 0.1),
        _seconds("1 session", "query 1", 2.0, 3.0, 4.0),
        _seconds("1 session", "queries 2 to 10", 0.1, 0.2),
        _seconds("1 session", "another session", 0.3),
        _seconds("2 growth", "query 20", 0.25),
        Row("2 growth", "caches after query 1", Unit.BYTES, (10e6,)),
        Row("2 growth", "caches after query 20", Unit.BYTES, (12e6,)),
        _seconds("3 context", "1,000 tokens, new", 0.5),
        _seconds("3 context", "1,000 tokens, follow-up", 0.1),
        Row("4 memory", "resident after 0 queries", Unit.BYTES, (300e6,)),
        Row("4 memory", "MLX after 0 queries", Unit.BYTES, (1.0,)),
        Row("4 memory", "resident after 200 queries", Unit.BYTES, (310e6,)),
    ),
)


def test_each_test_of_the_benchmark_has_its_row() -> None:
    """Medians with their range, ratios of medians, and bytes in the order of the queries."""
    text = page(
        {CASES[0]: _REPORT, CASES[1]: replace(_REPORT, model="other")}, "today", "OpenBLAS", 0.1
    )
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = {name.removeprefix("| "): values for name, *values in lines}

    assert "3.00 s (2.00 s to 4.00 s), 4,050 tokens" in cells["Test 1: first query of a session"]
    assert "150.0 ms (100.0 ms to 200.0 ms), 20 times sooner" in cells["queries 2 to 10"]
    assert "1: 10.0 MB, 20: 12.0 MB" in cells["caches after queries"]
    assert "1,000 tokens: 500.0 ms, 100.0 ms, 5 times sooner" in text
    assert "0: 300.0 MB, 200: 310.0 MB" in text
    assert {len(values) for values in cells.values()} == {2}


def test_the_readme_has_the_table_of_one_run() -> None:
    """Every row is there, and the pictures exist."""
    written = section(ROOT / "README.md", SECTION)
    rows = page(dict.fromkeys(CASES, _REPORT), "today", "OpenBLAS", 0.1).splitlines()

    assert [row.split(" | ")[0] for row in rows if row.startswith("| ")] == [
        row.split(" | ")[0] for row in written.splitlines() if row.startswith("| ")
    ]
    assert all((ROOT / "docs" / case.picture).exists() for case in CASES)
    assert all(case.picture in written for case in CASES)
