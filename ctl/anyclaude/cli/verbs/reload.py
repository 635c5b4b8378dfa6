"""`anyclaudectl reload`: applies changed settings to the running daemon."""

from typing import TYPE_CHECKING, Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import to_dict
from anyclaude.cli.output import Json, report

if TYPE_CHECKING:
    from anyclaude.control.v1.control_pb2 import ReloadConfigResponse


def reload(
    trial: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    json: Json = False,
) -> None:
    """Apply changed settings; restarts the workers that read them. Exit 5: they are invalid."""
    with connect() as client:
        answer = client.reload(trial=trial)
    report(to_dict(answer), " ".join(_sentences(answer, trial=trial)), json=json)


def _sentences(answer: "ReloadConfigResponse", *, trial: bool) -> list[str]:
    if not answer.changed_keys and not answer.pending_keys:
        return ["No setting has changed."]
    said = []
    if answer.changed_keys:
        said.append(f"{'Would apply' if trial else 'Applied'} {', '.join(answer.changed_keys)}.")
    if answer.restarted_workers:
        workers = ", ".join(answer.restarted_workers)
        said.append(f"{'Would restart' if trial else 'Restarting'} {workers}.")
    if answer.pending_keys:
        said.append(
            f"{', '.join(answer.pending_keys)}: needs a new daemon, by "
            "`anyclaudectl service restart`, or by stopping and starting it."
        )
    return said
