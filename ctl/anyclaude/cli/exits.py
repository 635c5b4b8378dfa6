"""How a command ends: the documented exit codes, and the one exception that carries them."""

import os
import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """What scripts may rely on; docs/operating.md lists the same."""

    OK = 0
    FAILED = 1
    USAGE = 2
    # 3 is also what the Linux Standard Base asks of `service status`.
    NOT_RUNNING = 3
    NOT_FOUND = 4
    PRECONDITION = 5
    TIMEOUT = 6
    DEGRADED = 7
    INTERRUPTED = 130


class CommandError(Exception):
    """A command that cannot go on; the message says what, why and what to do next."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def leave_on_interrupt() -> None:
    """Makes Ctrl-C end this process at once, with INTERRUPTED.

    A KeyboardInterrupt raised while gRPC holds one of its locks leaves the lock taken, and the
    clean-up that follows waits for it for ever. A SIGINT that our caller ignores stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
