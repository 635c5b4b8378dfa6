"""`anyclaudectl version`: the versions of this command and of the running daemon."""

import typer

from anyclaude.cli.command import ask_if_running
from anyclaude.cli.output import Json, note, report


def version(json: Json = False) -> None:
    """Show the versions of command and daemon."""
    from importlib import metadata

    own = metadata.version("anyclaude")
    daemon = ask_if_running(lambda client: client.status().version)
    beside = f"anyclauded {daemon}" if daemon else "anyclauded is not running"
    report({"version": own, "daemon_version": daemon}, f"anyclaudectl {own}\n{beside}", json=json)
    if daemon and daemon != own:
        from anyclaude.cli.errors import how_to_replace

        note(f"The daemon has another version. {how_to_replace()}")


def of_the_command(wanted: bool) -> None:
    """Prints the version of this command for `anyclaudectl --version`."""
    if wanted:
        from importlib import metadata

        print(f"anyclaudectl {metadata.version('anyclaude')}")
        raise typer.Exit
