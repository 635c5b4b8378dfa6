"""`anyclaudectl shutdown`: stops the daemon as SIGTERM does, and waits until it has ended."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from anyclaude.cli.command import SYSTEM_CLOCK, Clock, CommandError, ExitCode, connect
from anyclaude.cli.output import Json, report

if TYPE_CHECKING:
    import psutil

_POLL_SECONDS: Final = 0.05


def shutdown(
    timeout: Annotated[
        float, typer.Option(min=0, help="Give up waiting after this many seconds; exit 6.")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Stop the daemon after its running requests and wait for its end."""
    with connect() as client:
        pid = client.status().pid
        process = _process(pid)
        client.shutdown()
    _wait_for_end(process, timeout)
    report({"stopped_pid": pid}, f"anyclauded (pid {pid}) has stopped.", json=json)


def _process(pid: int) -> "psutil.Process | None":
    """Finds the process before it stops, so that a reused pid is not mistaken for the daemon."""
    import psutil

    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _wait_for_end(
    process: "psutil.Process | None", timeout: float, clock: Clock = SYSTEM_CLOCK
) -> None:
    deadline = clock.now() + timeout
    while process and _is_alive(process):
        if clock.now() >= deadline:
            raise CommandError(
                ExitCode.TIMEOUT,
                f"anyclauded (pid {process.pid}) is still stopping after {timeout:g} s. "
                "See `anyclaudectl logs`.",
            )
        clock.sleep(_POLL_SECONDS)


def _is_alive(process: "psutil.Process") -> bool:
    import psutil

    try:
        # A zombie has ended already; only its parent has not collected it yet.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
