"""Compares the results of several servers in one page.

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

How well several servers implement what Claude Code needs of a local endpoint. The page is written
by `python -m tests.conformance.compare` from runs of the suite in `tests/conformance`. To run the
suite against a server:

    make conformance BASE_URL=http://127.0.0.1:8000 SERVER="name and version" TABLE=results.json

Without `BASE_URL` it starts this project's service on the demo model. The cases use plain HTTP and
the official clients for Python and TypeScript, and none needs a clever model. The rows on privacy,
on diagnostics and on how much is read from the cache go beyond what the API promises.

- A case is not applicable if the server has no such endpoint, or if the model's answer contained
  nothing to check. A case that is newer than a server's run is not counted for that server.
- The demo model calls a tool by itself. Every other model here has random weights and a template
  like Qwen3-Coder's, so it does only what it is made to do. vllm-mlx ran with its parser for that
  template.
- All servers ran on two processor cores that did other work too, so the rows on pings and on
  disconnects depend on the machine as well as on the server.
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
        "\n## By row\n\nHow many cases pass. Bold: at least one applicable case does not pass.\n",
        *_by_row(runs),
        "\n## Cases that do not pass everywhere\n",
        *_by_case(runs),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page([Run.from_json(Path(name).read_text()) for name in sys.argv[1:]]))
