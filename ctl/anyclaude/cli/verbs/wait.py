"""`anyclaudectl wait`: returns once the daemon answers, or once requests are answered."""

import os
import sys
from typing import Annotated

import typer

from anyclaude.cli.command import CommandError, ExitCode, own_paths
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
    from anyclaude.cli.service.lifecycle import find_manager, with_boot_messages
    from anyclaude.cli.waiting import describe, wait_for_service

    paths = own_paths()
    try:
        status = wait_for_service(paths.control_socket, ready=ready, timeout_seconds=timeout)
    except CommandError as error:
        if error.code is not ExitCode.TIMEOUT:
            raise
        raise with_boot_messages(error, find_manager(sys.platform, os.environ), paths) from None
    report(to_dict(status), describe(status), json=json)
