"""The one seam to launchctl and systemctl: tests record what would be run."""

import subprocess
from collections.abc import Callable, Sequence
from typing import Final

from anyclaude.cli.exits import CommandError, ExitCode

Runner = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]

# launchctl waits for the daemon's drain in some versions; systemctl restart always does.
_TIMEOUT_SECONDS: Final = 90.0


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a platform command and hands back what it said.

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


def must(run: Runner, command: Sequence[str]) -> None:
    """Runs a command whose failure ends ours.

    Raises:
        CommandError: FAILED, with what the command said.
    """
    done = run(command)
    if done.returncode != 0:
        raise failed(command, done)


def failed(command: Sequence[str], done: subprocess.CompletedProcess[str]) -> CommandError:
    """The error of a platform command."""
    said = (done.stderr or done.stdout).strip() or "no message"
    return CommandError(
        ExitCode.FAILED, f"`{' '.join(command)}` failed with code {done.returncode}: {said}"
    )
