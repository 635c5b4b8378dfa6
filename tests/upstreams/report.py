"""Writes the results of a run against real servers as a page, one line per case."""

from pathlib import Path

import pytest

_HEAD = """# The relay against real servers

`make upstreams` writes this page: it installs the servers and runs `tests/upstreams`. Every case
sends requests with the official Python client, through the front end and the relay. The model is
the demo model of this repository, for llama.cpp converted to GGUF with its own tokenizer and chat
template. In cases named `stream`, both the client and the server stream; in cases named `whole`,
neither does.
"""


class Reporter:
    """A pytest plugin that gathers outcomes and writes the page at the end."""

    def __init__(self, page: Path, date: str) -> None:
        self._page = page
        self._date = date
        self.versions: dict[str, str] = {}
        # By case, then by mode: the outcome and the note.
        self._rows: dict[str, dict[str, str]] = {}
        self._sentences: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            function = getattr(item, "function", None)
            self._sentences[item.nodeid] = " ".join((function.__doc__ or "").split())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        notes = ", ".join(f"{name} {value}" for name, value in report.user_properties)
        row = self._rows.setdefault(self._sentences[report.nodeid], {})
        _, _, asked = report.nodeid.removesuffix("]").partition("[")
        row[asked] = _outcome(report) + (f" ({notes})" if notes else "")

    def pytest_sessionfinish(self) -> None:
        self._page.write_text("\n".join(self._lines()))

    def _lines(self) -> list[str]:
        outcomes = [outcome for row in self._rows.values() for outcome in row.values()]
        passed = sum(outcome.startswith("passed") for outcome in outcomes)
        names = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [_HEAD, f"{self._date}: {passed} of {len(outcomes)} passed. Asked: {names}."]
        for sentence, row in self._rows.items():
            lines += ["", f"**{sentence}**", ""]
            lines += [f"- {asked or 'all'}: {outcome}" for asked, outcome in row.items()]
        return [*lines, ""]


def _outcome(report: pytest.TestReport) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.outcome
