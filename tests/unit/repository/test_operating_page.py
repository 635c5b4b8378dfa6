"""Commands in the documentation are real, and docs/operating.md has every verb and exit code."""

import re
import shlex
from typing import Any, Final

import pytest
import typer.main

from anyclaude.cli.command import ExitCode
from anyclaude.cli.main import app
from tests.checkout import ROOT

_PAGE: Final = (ROOT / "docs" / "operating.md").read_text()
_PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# In a code block a command ends with its line, in prose with its back quote.
_COMMAND: Final = re.compile(r"(?<![\w-])anyclaudectl ((?:[\w-][^`\n#&|>)]*)?[^`\n#&|>)\s])")


def _commands(text: str) -> list[str]:
    """The words after `anyclaudectl` in the code of a page."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))
    return sorted({line for code in [*blocks, *spans] for line in _COMMAND.findall(code)})


def _parse(command: Any, words: list[str]) -> str:
    """Parses the words as a real run would, without running; returns the verb's full name.

    Raises:
        click.UsageError: no such verb or option, a value that does not fit, an argument missing.
    """
    with command.make_context("anyclaudectl", words, resilient_parsing=False) as context:
        if not hasattr(command, "commands") or not (rest := _rest(context)):
            return ""
        name, inner, rest = command.resolve_command(context, rest)
        return f"{name} {_parse(inner, rest)}".strip()


def _rest(context: Any) -> list[str]:
    return [*context._protected_args, *context.args]


def _verbs() -> set[str]:
    """Every verb as it is typed, e.g. "cache list"."""
    found = set()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {})
        found |= {f"{name} {verb}" for verb in inner}
        if not inner or command.invoke_without_command:
            found.add(name)
    return found


@pytest.mark.parametrize(
    "line", sorted({line for page in _PAGES for line in _commands(page.read_text())})
)
def test_commands_of_the_pages_are_real(line: str) -> None:
    """Verb, options and values of each command are accepted as written; a bare verb exists."""
    if "COMMAND" not in line and line not in _verbs():
        _parse(typer.main.get_command(app), shlex.split(line))


@pytest.mark.parametrize(
    "line", ["statu", "status --wide", "wait --timeout soon", "cache show", "cache show a b"]
)
def test_wrong_commands_are_refused(line: str) -> None:
    """The check above fails for a wrong verb, option, value or number of arguments."""
    with pytest.raises(Exception, match=r"(?i)no such|not a valid|valid number|missing|unexpected"):
        _parse(typer.main.get_command(app), shlex.split(line))


def test_every_verb_is_on_the_page() -> None:
    """The table of commands has a line for each verb."""
    listed = {
        _parse(typer.main.get_command(app), shlex.split(line))
        for line in re.findall(r"^\| `anyclaudectl ([^`]+)` \|", _PAGE, re.MULTILINE)
    }

    # A bare `config` is `config show`.
    assert listed | {"config"} == _verbs()


def test_every_exit_code_is_on_the_page() -> None:
    """The page's table of exit codes equals the enum."""
    listed = re.findall(r"^\| (\d+) \|", _PAGE, re.MULTILINE)

    assert [int(code) for code in listed] == [code.value for code in ExitCode]
