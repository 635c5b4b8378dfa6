"""The report: sections that run one by one, and tables.

A section that fails is reported with its error, and the next one runs.
"""

import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# A table row: what was measured, and the figure.
Row = tuple[str, object]
_ERROR_LINES = 12


class Outcome(StrEnum):
    """How a section ended."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class SkippedError(Exception):
    """The section cannot run here; the message says why."""


class CheckError(Exception):
    """What the section checks is not as it should be."""


@dataclass(frozen=True)
class Section:
    """One part of the report; `run` returns its lines of Markdown."""

    name: str
    title: str
    run: Callable[[], list[str]]


@dataclass(frozen=True)
class Finished:
    """A section that has run, with its lines."""

    section: Section
    outcome: Outcome
    lines: list[str]

    def markdown(self) -> str:
        return "\n".join([f"## {self.section.title} ({self.outcome})", "", *self.lines, ""])


def run_section(section: Section) -> Finished:
    """Runs one section; its errors become part of the report."""
    try:
        return Finished(section, Outcome.DONE, section.run())
    except SkippedError as reason:
        return Finished(section, Outcome.SKIPPED, [str(reason)])
    except Exception as error:  # noqa: BLE001 - one section must not end the others
        return Finished(section, Outcome.FAILED, code_block(explain(error)))


def explain(error: Exception) -> str:
    """The error in words, with the end of what a failed command printed."""
    text = str(error) if isinstance(error, CheckError) else f"{type(error).__name__}: {error}"
    if isinstance(error, subprocess.CalledProcessError):
        text += f"\n{error.stdout or ''}\n{error.stderr or ''}"
    return "\n".join(text.strip().splitlines()[-_ERROR_LINES:])


def table(head: tuple[str, str], rows: Iterable[Row]) -> list[str]:
    """A Markdown table of two columns."""
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return lines + [f"| {name} | {_cell(value)} |" for name, value in rows]


def code_block(text: str) -> list[str]:
    return ["```text", *text.splitlines(), "```"]


def scalars(document: Mapping[str, object], prefix: str = "") -> list[Row]:
    """The numbers and flags of a JSON document by their dotted names, and how long its lists are.

    Texts are left out: a list of caches has titles, which come from prompts.
    """
    rows: list[Row] = []
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += scalars(value, f"{name}.")
        elif isinstance(value, list):
            rows.append((f"{name} (count)", len(value)))
        elif isinstance(value, bool | int | float):
            rows.append((name, value))
    return rows


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _cell(value: object) -> str:
    if isinstance(value, float):
        value = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
