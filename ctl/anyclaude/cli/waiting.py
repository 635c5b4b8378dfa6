"""Waits for the daemon to answer, or for its current mode to answer requests.

It also waits for a daemon that has not started yet, so that a script can start one and wait. A
problem that waiting cannot solve, such as a worker that the supervisor gave up on, ends the wait.
"""

from pathlib import Path
from typing import Final

from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import SYSTEM_CLOCK, Clock, CommandError, ExitCode
from anyclaude.cli.convert import word_of
from anyclaude.control.v1 import control_pb2

_POLL_SECONDS: Final = 0.1
# Every attempt sends a request to the mode's server.
_SWITCH_POLL_SECONDS: Final = 0.5
_MAY_COME_UP: Final = frozenset({ExitCode.NOT_RUNNING, ExitCode.TIMEOUT})


def wait_for_service(
    socket_path: Path, *, ready: bool, timeout_seconds: float, clock: Clock = SYSTEM_CLOCK
) -> control_pb2.Status:
    """Returns the status once the daemon answers, or with `ready` once requests are answered.

    Raises:
        CommandError: TIMEOUT, with the last state seen; DEGRADED when waiting cannot help.
    """
    deadline = clock.now() + timeout_seconds
    last_seen = ""
    while True:
        try:
            with ControlClient(socket_path) as client:
                status = client.status()
                last_seen = describe(status)
                if not ready:
                    return status
                for status in client.watch_status(max(deadline - clock.now(), 0.001)):
                    last_seen = describe(status)
                    if status.is_serving:
                        return status
                    _raise_if_hopeless(status)
        except CommandError as error:
            if error.code not in _MAY_COME_UP:
                raise
            if error.code is ExitCode.NOT_RUNNING or not last_seen:
                last_seen = error.message
        if clock.now() >= deadline:
            raise CommandError(
                ExitCode.TIMEOUT, f"Not {_goal(ready)} after {timeout_seconds:g} s. {last_seen}"
            )
        clock.sleep(_POLL_SECONDS)


def switch_when_ready(
    client: ControlClient, mode: str, timeout_seconds: float, clock: Clock = SYSTEM_CLOCK
) -> control_pb2.SetModeResponse:
    """Switches to `mode` as soon as it is ready.

    Raises:
        CommandError: TIMEOUT, with the last reason; any other error at once.
    """
    deadline = clock.now() + timeout_seconds
    while True:
        try:
            return client.set_mode(mode, max(deadline - clock.now(), 0.0))
        except CommandError as error:
            if error.code is not ExitCode.PRECONDITION:
                raise
            if clock.now() >= deadline:
                message = f"Not ready after {timeout_seconds:g} s. {error.message}"
                raise CommandError(ExitCode.TIMEOUT, message) from None
        clock.sleep(_SWITCH_POLL_SECONDS)


def describe(status: control_pb2.Status) -> str:
    """One line with the state of the service and every problem."""
    return " ".join([f"The service is {word_of(status, 'readiness')}.", *status.problems])


def _raise_if_hopeless(status: control_pb2.Status) -> None:
    gave_up = any(w.state == control_pb2.WORKER_STATE_FATAL for w in status.workers)
    if status.readiness == control_pb2.READINESS_DEGRADED and gave_up:
        raise CommandError(ExitCode.DEGRADED, describe(status))


def _goal(ready: bool) -> str:
    return "ready" if ready else "answering"
