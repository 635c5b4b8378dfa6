"""docs/operating.md: every command in it is real, every verb and exit code is in it."""

import re

import pytest
import typer.main

from anyclaude.cli.command import ExitCode
from anyclaude.cli.main import app
from tests.checkout import ROOT

_PAGE = (ROOT / "docs" / "operating.md").read_text()
_COMMANDS = sorted(set(re.findall(r"`anyclaudectl ([^`]+)`", _PAGE)))


def _verbs() -> set[str]:
    """Every verb as it is typed, e.g. "cache list"."""
    found = set()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {verb}" for verb in inner} if inner else {name}
    return found


@pytest.mark.parametrize("line", _COMMANDS)
def test_commands_of_the_page_are_real(line: str) -> None:
    """Each command's verb and options are understood (asked for its help, so nothing runs)."""
    words = [word for word in line.split() if word != "NAME"]

    with pytest.raises(SystemExit) as ended:
        app([*words, *(["x"] if "NAME" in line else []), "--help"], prog_name="anyclaudectl")

    assert ended.value.code == 0


def test_every_verb_is_on_the_page() -> None:
    """No verb without a line."""
    missing = [
        verb
        for verb in _verbs()
        if not any(f"{line} ".startswith(f"{verb} ") for line in _COMMANDS)
    ]

    assert missing == []


def test_every_exit_code_is_on_the_page() -> None:
    """The table of the page is the enum."""
    listed = re.findall(r"^\| (\d+) \|", _PAGE, re.MULTILINE)

    assert [int(code) for code in listed] == [code.value for code in ExitCode]
