"""What all commands share: help, version, completion, errors as JSON, and how they end."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from tests.integration.cli.conftest import Commands
from tests.integration.cli.scripted_control import ScriptedControl

# What bash does when Tab is pressed behind the last word.
_PRESS_TAB = """
eval "$(anyclaudectl completion bash)"
COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_anyclaudectl_completion anyclaudectl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_help_in_both_forms(commands: Commands) -> None:
    """`-h` is `--help`, also below a command; every command is in one section."""
    long, short = commands.ctl("--help"), commands.ctl("-h")

    assert long.stdout == short.stdout
    assert "When something is wrong:\n  doctor " in long.stdout
    assert commands.ctl("cache", "list", "-h").stdout.startswith("Usage: anyclaudectl cache list")


def test_version_of_the_command(commands: Commands) -> None:
    """`--version` needs no daemon."""
    assert commands.ctl("--version").stdout == f"anyclaudectl {metadata.version('anyclaude')}\n"


def test_an_error_is_a_document(commands: Commands) -> None:
    """With `--json` a failed command prints its error as the one document."""
    done = commands.ctl("status", "--json")

    document = json.loads(done.stdout)
    assert done.returncode == document["error"]["code"] == 3
    assert document["error"]["message"] == done.stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["status", "--jason"], "--jason"),
        (["requests", "-n", "many"], "--count"),
        (["cache", "show"], "name"),
        (["statos"], "statos"),
    ],
)
def test_a_usage_error_is_a_document(commands: Commands, arguments: list[str], named: str) -> None:
    """With `--json` it has the code 2 and names what is wrong, as people read it without."""
    done = commands.ctl(*arguments, "--json")
    plain = commands.ctl(*arguments)

    error = json.loads(done.stdout)["error"]
    assert done.returncode == plain.returncode == error["code"] == 2
    assert named in error["message"]
    assert done.stderr == plain.stderr
    assert plain.stdout == ""


@pytest.mark.parametrize(
    ("words", "found"),
    [("anyclaudectl ver", ["version"]), ("anyclaudectl cache ex", ["explain", "export"])],
)
def test_bash_completes_commands(commands: Commands, words: str, found: list[str]) -> None:
    """The script that `completion bash` prints completes commands in a real bash."""
    commands.put_program(
        "anyclaudectl", "import sys\nfrom anyclaude.cli.main import run\nsys.exit(run())\n"
    )
    commands.environ["PATH"] += f":{os.environ['PATH']}"

    done = subprocess.run(
        ["bash", "--norc", "-c", _PRESS_TAB.format(words=words)],
        env=commands.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert sorted(done.stdout.split()) == found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells(commands: Commands, shell: str) -> None:
    """Their scripts ask the same program."""
    assert "_ANYCLAUDECTL_COMPLETE=complete_" in commands.ctl("completion", shell).stdout


def test_a_reader_that_has_gone(commands: Commands, control: ScriptedControl) -> None:
    """A closed pipe, as of `head`, ends a command without a traceback."""
    command = subprocess.Popen(
        [sys.executable, "-m", "anyclaude.cli", "status"],
        env=commands.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    commands.started.append(command)
    assert command.stdout is not None
    command.stdout.close()
    _, errors = command.communicate(timeout=120)

    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
