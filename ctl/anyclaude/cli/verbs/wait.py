"""`anyclaudectl wait`: returns once the service answers, or is ready."""

import os
from typing import Annotated

import typer

from anyclaude.cli.options import Json
from anyclaude.cli.output import emit


def wait(
    ready: Annotated[
        bool, typer.Option("--ready", help="Until the current mode answers requests.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds; then exit 6.")] = 120.0,
    json: Json = False,
) -> None:
    """Wait until the daemon answers. With --ready: until requests are answered."""
    from anyclaude.cli.convert import to_dict
    from anyclaude.cli.waiting import describe, wait_for_service
    from anyclaude.runtime.paths import find_paths

    socket_path = find_paths(os.environ).control_socket
    answer = wait_for_service(socket_path, ready=ready, timeout_seconds=timeout)
    if json:
        emit(to_dict(answer))
    else:
        print(describe(answer))
