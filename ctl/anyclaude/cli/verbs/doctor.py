"""`anyclaudectl doctor`: what is wrong with this machine or installation, and what mends it."""

from typing import TYPE_CHECKING, Final

import typer

from anyclaude.cli.command import ExitCode
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyclaude.cli.doctor.finding import Finding

_TONES: Final = {"ok": Tone.GOOD, "warning": Tone.WARN, "problem": Tone.BAD}


def doctor(json: Json = False) -> None:
    """Check this machine and installation; name what mends each problem. Exit 1: a problem."""
    from anyclaude.cli.doctor.checks import CHECKS, examine
    from anyclaude.cli.doctor.finding import Level, run_check

    examined = examine()
    findings = {name: run_check(check, examined) for name, check in CHECKS.items()}
    healthy = all(f.level is not Level.PROBLEM for found in findings.values() for f in found)
    if json:
        emit({"healthy": healthy, "findings": list(documents(findings))})
    else:
        table(("LEVEL", "CHECK", "WHAT"), [row for item in findings.items() for row in _rows(item)])
    if not healthy:
        raise typer.Exit(ExitCode.FAILED)


def documents(findings: "dict[str, list[Finding]]") -> "Iterator[dict[str, str]]":
    """The findings as `--json` prints them."""
    for name, found in findings.items():
        for each in found:
            yield {
                "check": name,
                "level": str(each.level),
                "what": each.what,
                "why": each.why,
                "fix": each.fix,
            }


def _rows(item: "tuple[str, list[Finding]]") -> "Iterator[Row]":
    name, found = item
    for each in found:
        yield (
            Cell(each.level, _TONES[each.level]),
            name,
            " ".join(filter(None, [each.what, each.why])),
        )
        if each.fix:
            yield "", "", Cell(f"Fix: {each.fix}", Tone.DIM)
