"""`anyclaudectl worker list|restart|forget`: the processes that the daemon supervises."""

from typing import Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import to_dict
from anyclaude.cli.output import Json, emit
from anyclaude.cli.verbs.status import show_workers

app = typer.Typer(help="List and restart the worker processes.", no_args_is_help=True)


@app.command("list")
def list_workers(json: Json = False) -> None:
    """List the workers with state, pid, restarts and last exit."""
    with connect() as client:
        answer = client.workers()
    if json:
        emit(to_dict(answer))
    else:
        show_workers(answer.workers)


@app.command("restart")
def restart(
    name: Annotated[str, typer.Argument(help="As `worker list` prints it.")], json: Json = False
) -> None:
    """Stop a worker and start it again, also one that the supervisor gave up on."""
    with connect() as client:
        worker = client.restart_worker(name)
    if json:
        emit({"worker": to_dict(worker)})
    else:
        show_workers([worker])


@app.command("forget")
def forget(
    mode: Annotated[str, typer.Argument(help="A mode that another server answers.")],
    json: Json = False,
) -> None:
    """Forget what the server behind a mode was seen to refuse, so that it is asked again."""
    with connect() as client:
        answer = client.forget_learned(mode)
    if json:
        emit(to_dict(answer))
    elif answer.learned:
        print(f"Forgot this about the server of {mode}: {', '.join(answer.learned)}.")
    else:
        print(f"The server of {mode} was not seen to refuse anything.")
