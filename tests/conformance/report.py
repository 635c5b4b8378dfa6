"""Results as a table: one line for each case, below the row that it belongs to.

A skipped case is "not applicable", a case that is expected to fail is "open"; the reason of either
is shown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.rows import Row


class Outcome(StrEnum):
    """Ordered: the worst outcome of a case's phases counts."""

    PASS = "pass"
    NOT_APPLICABLE = "not applicable"
    OPEN = "open"
    FAIL = "FAIL"


_ORDER = tuple(Outcome)


@dataclass(frozen=True)
class Result:
    """One case."""

    row: str
    case: str
    outcome: Outcome
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One run of the suite against one server."""

    server: str
    date: str
    results: tuple[Result, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Run":
        read = json.loads(text)
        results = tuple(
            Result(**{**result, "outcome": Outcome(result["outcome"])})
            for result in read["results"]
        )
        return cls(read["server"], read["date"], results)


class Recorder:
    """A pytest plugin that gathers results."""

    def __init__(self) -> None:
        self._cases: dict[str, tuple[str, str]] = {}
        self._results: dict[str, Result] = {}

    @property
    def results(self) -> tuple[Result, ...]:
        rows = list(Row)
        return tuple(sorted(self._results.values(), key=lambda result: rows.index(Row(result.row))))

    def add_case(self, item: pytest.Item) -> None:
        """Records what the test stands for in the table."""
        marker = item.get_closest_marker("row")
        function = getattr(item, "function", None)
        if marker is not None and function is not None:
            sentence = " ".join((function.__doc__ or item.name).split("\n\n")[0].split())
            parameter = item.name.partition("[")[2].removesuffix("]")
            case = f"{sentence.rstrip('.')} ({parameter})" if parameter else sentence.rstrip(".")
            self._cases[item.nodeid] = (str(marker.args[0]), case)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self._cases or (report.when != "call" and report.passed):
            return
        row, case = self._cases[report.nodeid]
        outcome, note = _judge(report)
        known = self._results.get(report.nodeid)
        if known is None or _ORDER.index(outcome) > _ORDER.index(known.outcome):
            self._results[report.nodeid] = Result(row, case, outcome, note)


def _judge(report: pytest.TestReport) -> tuple[Outcome, str]:
    if reason := getattr(report, "wasxfail", ""):
        return Outcome.OPEN, reason.removeprefix("reason: ")
    if report.passed:
        return Outcome.PASS, ""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        return Outcome.NOT_APPLICABLE, str(reason).removeprefix("Skipped: ")
    return Outcome.FAIL, _crash_line(report.longrepr)


def _crash_line(longrepr: Any) -> str:
    crash = getattr(longrepr, "reprcrash", None)
    text: str = crash.message if crash is not None else str(longrepr)
    return text.splitlines()[0][:200] if text else ""


def counts(results: Sequence[Result]) -> Mapping[Outcome, int]:
    return {outcome: sum(r.outcome is outcome for r in results) for outcome in Outcome}


def summary(run: Run) -> str:
    """`12 pass, 1 not applicable`."""
    told = [f"{number} {name}" for name, number in counts(run.results).items() if number]
    return ", ".join(told) or "nothing ran"


def single_table(run: Run) -> str:
    """The markdown of one run."""
    lines = [
        f"{run.server}, {run.date}: {summary(run)}.",
        "",
        "| Row | Case | Result | Note |",
        "|---|---|---|---|",
        *(f"| {r.row} | {escape(r.case)} | {r.outcome} | {escape(r.note)} |" for r in run.results),
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that stays inside its cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def write(run: Run, path: Path) -> None:
    """A `.json` file can be compared with others later; anything else gets markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run.to_json() if path.suffix == ".json" else single_table(run))
