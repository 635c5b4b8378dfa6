"""Puts the results of several servers side by side.

    python -m tests.conformance.compare RESULTS.json... > docs/conformance.md

The results that the page was made from lie in `tests/conformance/results`.

Cases of one row share a line of the first table; every case that did not pass somewhere has a line
in the second one.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.conformance.report import Outcome, Result, Run, escape, summary
from tests.conformance.rows import Row

_HEAD = """\
# Conformance to the Messages API

Written by `python -m tests.conformance.compare` from runs of the suite in `tests/conformance`:

    make conformance BASE_URL=http://127.0.0.1:8000 SERVER="name and version" TABLE=results.json

Without `BASE_URL` it starts this project's service on the demo model. The cases ask over plain HTTP
and through the official clients for Python and TypeScript, and none needs a clever model. What is
asked for is what Claude Code needs of a local endpoint; the rows on privacy, on diagnostics and on
how much is read from the cache go beyond what the API promises. A case is not applicable where the
server does not serve its endpoint, or where the model did not give it anything to judge; a case
that is newer than a server's run is not counted for it. The demo model calls a tool of its own
accord; every other model here has random weights behind a template like Qwen3-Coder's, and does
nothing that it is not made to do. vllm-mlx ran with its parser for that template. All ran on two
processor cores that did other work too:
the rows on pings and on disconnects may say as much of the machine as of a server.
"""


def _cell(results: Sequence[Result]) -> str:
    """`7 of 8`, of the cases that applied."""
    applied = [result for result in results if result.outcome is not Outcome.NOT_APPLICABLE]
    if not applied:
        return "n/a"
    passed = sum(result.outcome is Outcome.PASS for result in applied)
    return str(passed) if passed == len(applied) else f"**{passed} of {len(applied)}**"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line("---" for _ in head), *map(_line, lines)]


def _by_row(runs: Sequence[Run]) -> list[str]:
    lines = [
        [row, *(_cell([r for r in run.results if r.row == row]) for run in runs)] for row in Row
    ]
    return _table(["Row", *(run.server for run in runs)], lines)


def _told(result: Result | None) -> str:
    if result is None:
        return "not run"
    if result.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE):
        return str(result.outcome)
    return f"{result.outcome}: {escape(result.note)[:110]}"


def _by_case(runs: Sequence[Run]) -> list[str]:
    outcomes = [{(r.row, r.case): r for r in run.results} for run in runs]
    lines = []
    for key in dict.fromkeys(key for found in outcomes for key in found):
        results = [found.get(key) for found in outcomes]
        if any(r is not None and r.outcome in (Outcome.FAIL, Outcome.OPEN) for r in results):
            lines.append([key[0], escape(key[1]), *map(_told, results)])
    return _table(["Row", "Case", *(run.server for run in runs)], lines)


def page(runs: Sequence[Run]) -> str:
    """The whole document."""
    parts = [
        _HEAD,
        *(f"- {run.server}, {run.date}: {summary(run)}" for run in runs),
        "\n## By row\n\nHow many cases pass; in bold where one that applies does not.\n",
        *_by_row(runs),
        "\n## Cases that do not pass everywhere\n",
        *_by_case(runs),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page([Run.from_json(Path(name).read_text()) for name in sys.argv[1:]]))
