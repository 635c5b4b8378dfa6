"""`anyclaudectl version`: the versions of this command and of the running daemon."""

from anyclaude.cli.command import CommandError, ExitCode, connect
from anyclaude.cli.output import Json, emit, note


def version(json: Json = False) -> None:
    """Show the versions of command and daemon."""
    from importlib import metadata

    own = metadata.version("anyclaude")
    daemon = _daemon_version()
    if json:
        emit({"version": own, "daemon_version": daemon})
    else:
        print(f"anyclaudectl {own}")
        print(f"anyclauded {daemon}" if daemon else "anyclauded is not running")
    if daemon and daemon != own:
        note("The daemon has another version: restart it (`anyclaudectl service install`).")


def _daemon_version() -> str | None:
    try:
        with connect() as client:
            return client.status().version
    except CommandError as error:
        if error.code is ExitCode.NOT_RUNNING:
            return None
        raise
