"""`anyclaudectl mode [NAME]`: which worker answers requests, and the switch."""

from typing import Annotated

import typer

from anyclaude.ctl.connect import connect
from anyclaude.ctl.options import Json
from anyclaude.ctl.output import Cell, Tone, emit, note, table


def mode(
    name: Annotated[str, typer.Argument(help="Switch to this mode.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """Show the modes, or switch to one for the next request."""
    if name:
        _switch(name, json=json)
    else:
        _show(json=json)


def _show(*, json: bool) -> None:
    from anyclaude.ctl.convert import to_dict

    with connect() as client:
        answer = client.modes()
    if json:
        emit(to_dict(answer))
        return
    table(
        ("", "MODE", "STATE", "WHAT"),
        [
            (
                "*" if known.name == answer.mode else "",
                known.name,
                Cell("ready", Tone.GOOD) if known.ready else Cell("not ready", Tone.WARN),
                known.description if known.ready else known.reason or known.description,
            )
            for known in answer.modes
        ],
    )


def _switch(name: str, *, json: bool) -> None:
    from anyclaude.ctl.convert import to_dict

    with connect() as client:
        answer = client.set_mode(name)
    if answer.warning:
        note(answer.warning)
    if json:
        emit(to_dict(answer))
    elif answer.mode == answer.previous_mode:
        print(f"The mode is {answer.mode} already.")
    else:
        print(f"The mode is {answer.mode} from the next request on (was {answer.previous_mode}).")
