"""`anyclaudectl mode [NAME]`: shows which worker answers requests, or switches to another."""

from typing import Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import to_dict
from anyclaude.cli.output import Cell, Json, Tone, emit, note, table


def mode(
    name: Annotated[str, typer.Argument(help="Switch to this mode.", show_default=False)] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the mode is ready.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait with --wait; then exit 6.")
    ] = 120.0,
    json: Json = False,
) -> None:
    """Show the modes, or switch to one for the next request. Exit 5 when it is not ready."""
    if name:
        _switch(name, wait_seconds=timeout if wait else None, json=json)
    else:
        _show(json=json)


def _show(*, json: bool) -> None:
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
                ". ".join(filter(None, (known.description, known.reason))),
            )
            for known in answer.modes
        ],
    )


def _switch(name: str, *, wait_seconds: float | None, json: bool) -> None:
    from anyclaude.cli.waiting import switch_when_ready

    with connect() as client:
        if wait_seconds is None:
            answer = client.set_mode(name)
        else:
            answer = switch_when_ready(client, name, wait_seconds)
    if answer.warning:
        note(answer.warning)
    if json:
        emit(to_dict(answer))
    elif answer.mode == answer.previous_mode:
        print(f"The mode is {answer.mode} already.")
    else:
        print(f"The mode is {answer.mode} from the next request on (was {answer.previous_mode}).")
