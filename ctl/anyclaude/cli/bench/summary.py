"""Says in sentences what a run showed, and draws its picture."""

from collections.abc import Iterator
from typing import Final

from anyclaude.cli.bench.chart import Bar, draw
from anyclaude.cli.bench.figures import Report, Row, Unit
from anyclaude.cli.bench.trials import SESSION_QUERIES

_SESSION: Final = "1 session"
_SERIES: Final = "first token"


def sentences(report: Report) -> list[str]:
    """What the tests found; nothing about those that did not run."""
    return [*_session(report), *_growth(report), *_contexts(report), *_memory(report)]


def picture(report: Report) -> str:
    """The times to the first token as an SVG document."""
    rows = [row for row in report.rows if row.unit is Unit.SECONDS]
    groups = {
        f"{row.test[2:]}: {row.name}": {_SERIES: Bar(row.median, row.shown(row.median))}
        for row in rows
    }
    return draw(f"Time to the first token, {report.model}, {report.machine}", groups)


def _session(report: Report) -> Iterator[str]:
    first = report.row(_SESSION, "query 1")
    follow = report.row(_SESSION, f"queries 2 to {SESSION_QUERIES}")
    bare = report.row(_SESSION, "no instructions")
    if first is None or follow is None or bare is None:
        return
    share = max(0.0, 1 - bare.median / first.median)
    total = first.median + (SESSION_QUERIES - 1) * follow.median
    whole = SESSION_QUERIES * first.median
    yield (
        f"The instructions take {share:.0%} of the time to the first token of a first query, "
        f"and a follow-up comes {first.median / follow.median:.1f} times sooner than that query."
    )
    yield (
        f"{SESSION_QUERIES} queries wait {first.shown(total)} for their first tokens; without a "
        f"cache they would wait {first.shown(whole)}, {whole / total:.1f} times as long."
    )


def _growth(report: Report) -> Iterator[str]:
    rows = [row for row in report.rows if row.test == "2 growth"]
    for unit, what in ((Unit.SECONDS, "First tokens"), (Unit.BYTES, "Memory")):
        own = [row for row in rows if row.unit is unit and not row.name.endswith(" 1")]
        if len(own) > 1:
            yield f"{what}: {_span(own)}."


def _contexts(report: Report) -> Iterator[str]:
    for row in report.rows:
        size, _, kind = row.name.rpartition(", ")
        follow_up = report.row(row.test, f"{size}, follow-up")
        if row.test == "3 context" and kind == "new" and follow_up is not None:
            ratio = row.median / follow_up.median
            yield f"With {size} a follow-up comes {ratio:.1f} times sooner than a new prompt."


def _memory(report: Report) -> Iterator[str]:
    rows = [row for row in report.rows if row.test == "4 memory" and row.unit is Unit.BYTES]
    for name in dict.fromkeys(row.name.partition(" after ")[0] for row in rows):
        yield f"Memory: {_span([row for row in rows if row.name.startswith(name)])}."


def _span(rows: list[Row]) -> str:
    """The first and the last of these rows."""
    return ", ".join(f"{row.name} {row.shown(row.median)}" for row in (rows[0], rows[-1]))
