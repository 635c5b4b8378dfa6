"""`anyclaudectl wait`: returns once the daemon answers, or once requests are answered."""

from typing import Annotated

import typer

from anyclaude.cli.command import own_paths
from anyclaude.cli.convert import to_dict
from anyclaude.cli.output import Json, report


def wait(
    ready: Annotated[
        bool, typer.Option("--ready", help="Wait until the mode answers requests.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="Give up after this many seconds; exit 6.")
    ] = 120.0,
    json: Json = False,
) -> None:
    """Wait until the daemon answers, or until the mode is ready."""
    from anyclaude.cli.waiting import describe, wait_for_service

    socket_path = own_paths().control_socket
    status = wait_for_service(socket_path, ready=ready, timeout_seconds=timeout)
    report(to_dict(status), describe(status), json=json)
