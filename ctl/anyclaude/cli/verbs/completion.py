"""`anyclaudectl completion SHELL`: the script that lets a shell complete our commands."""

import os
from enum import StrEnum
from typing import Annotated, Final

import typer

from anyclaude.cli.output import Json, report

PROGRAM: Final = "anyclaudectl"
# The shell's script sets it when it asks for completions.
_VARIABLE: Final = "_ANYCLAUDECTL_COMPLETE"


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Your shell.")], json: Json = False
) -> None:
    """Print the completion of a shell, for its startup file.

    In .bashrc or .zshrc: eval "$(anyclaudectl completion bash)", or zsh. In config.fish:
    anyclaudectl completion fish | source.
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name=PROGRAM, complete_var=_VARIABLE, shell=shell.value)
    report({"shell": str(shell), "script": script}, script, json=json)


def prepare() -> None:
    """Lets this run answer a shell that asks for completions; typer does the rest."""
    if _VARIABLE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
