"""The interface of both service managers, and how their commands are run.

`launchd` and `systemd` implement `ServiceManager`; `lifecycle` uses nothing else of them. Both
start platform commands through a `Runner`, so that a test can record them.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from anyclaude.cli.command import CommandError, ExitCode

Runner = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]

# launchctl waits for the daemon's drain in some versions; systemctl restart always does.
_TIMEOUT_SECONDS: Final = 90.0


@dataclass(frozen=True)
class Program:
    """The program that the service runs."""

    executable: Path
    environment: Mapping[str, str]
    # The output of a daemon that dies before it opens its own log.
    boot_log: Path


@dataclass(frozen=True)
class ServiceState:
    """The service as its manager sees it; a loaded service need not run."""

    loaded: bool
    running: bool
    pid: int | None


class ServiceManager(Protocol):
    """launchd or systemd."""

    @property
    def file(self) -> Path:
        """The path of the service's description."""

    def render(self, program: Program) -> bytes:
        """The content of `file`."""

    def installed_program(self) -> Path | None:
        """The program that `file` starts; None if it names none."""

    def state(self) -> ServiceState: ...

    def activate(self) -> None:
        """Loads a new or changed file, and starts or restarts the service from it."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Stops the service until the next login; returns once it has ended."""

    def restart(self) -> None: ...

    def boot_messages(self, since: float) -> str:
        """What the daemon printed after `since` (Unix time) outside its own log; may be empty."""

    def remove(self) -> None:
        """Stops the service for good and deletes its file."""


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a platform command and captures its output.

    Raises:
        CommandError: PRECONDITION when this machine has no such command, TIMEOUT when it hangs.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise CommandError(
            ExitCode.PRECONDITION,
            f"There is no `{command[0]}` on this machine, so no service can be managed. "
            "Run `anyclauded` yourself, or `make run` in the checkout.",
        ) from None
    except subprocess.TimeoutExpired:
        raise CommandError(
            ExitCode.TIMEOUT, f"`{' '.join(command)}` did not end in {_TIMEOUT_SECONDS:g} s."
        ) from None


def must(run: Runner, command: Sequence[str]) -> str:
    """Runs a command that has to succeed, and returns its output.

    Raises:
        CommandError: FAILED, with the command's own message.
    """
    done = run(command)
    if done.returncode != 0:
        raise failed(command, done)
    return done.stdout


def failed(command: Sequence[str], done: subprocess.CompletedProcess[str]) -> CommandError:
    """The error for a platform command that failed."""
    message = (done.stderr or done.stdout).strip() or "no message"
    return CommandError(
        ExitCode.FAILED, f"`{' '.join(command)}` failed with code {done.returncode}: {message}"
    )
