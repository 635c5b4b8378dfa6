"""What every command shares: its exit codes, the error that carries one, a clock, a connection.

This module imports gRPC only when a command connects, so that `--help` stays fast.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from anyclaude.cli.client import ControlClient
    from anyclaude.runtime.paths import Paths


Answer = TypeVar("Answer")


class ExitCode(IntEnum):
    """Exit codes that scripts may rely on; docs/operating.md lists the same."""

    OK = 0
    FAILED = 1
    USAGE = 2
    # The Linux Standard Base also asks for 3 from `service status` of a stopped service.
    NOT_RUNNING = 3
    NOT_FOUND = 4
    PRECONDITION = 5
    TIMEOUT = 6
    DEGRADED = 7
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends a command. The message says what happened, why, and what to do next."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Clock:
    """A monotonic clock in seconds, and a way to wait; a test replaces both to avoid waiting."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


SYSTEM_CLOCK: Final = Clock()


def connect() -> "ControlClient":
    """Connects to the daemon that this environment names.

    Raises:
        CommandError: NOT_RUNNING or TIMEOUT.
    """
    from anyclaude.cli.client import ControlClient

    return ControlClient(own_paths().control_socket)


def ask_if_running(question: "Callable[[ControlClient], Answer]") -> Answer | None:
    """Returns the daemon's response, or None when no daemon is running."""
    try:
        with connect() as client:
            return question(client)
    except CommandError as error:
        if error.code is ExitCode.NOT_RUNNING:
            return None
        raise


def own_paths() -> "Paths":
    """The files and folders of the installation that this environment names."""
    from anyclaude.runtime.paths import find_paths

    return find_paths(os.environ)


def leave_on_interrupt() -> None:
    """Makes Ctrl-C end this process at once, with INTERRUPTED.

    A KeyboardInterrupt raised while gRPC holds one of its locks leaves the lock taken, and the
    clean-up that follows would wait for it for ever. A SIGINT that our caller ignores stays
    ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
