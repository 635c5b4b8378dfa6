"""What a check looks at, and what it finds.

A check is a function from `Examined` to findings: none if there is nothing to say. It changes
nothing, and it reads the machine through `Examined`, so that a test can examine another one.
"""

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from anyclaude.cli.command import CommandError
from anyclaude.cli.service.manager import Runner, ServiceManager
from anyclaude.control.v1 import control_pb2
from anyclaude.runtime.loading import LoadedSettings
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.settings import Settings

_COMMAND_SECONDS: Final = 60.0


class Level(StrEnum):
    OK = "ok"
    # It works, but not as it could.
    WARNING = "warning"
    # Something does not work.
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One result: what is so, why it matters, and a command that mends it."""

    level: Level
    what: str
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Running:
    """What a running daemon says of itself."""

    status: control_pb2.Status
    modes: control_pb2.GetModeResponse
    settings: Settings


@dataclass(frozen=True)
class Examined:
    """This machine and installation, as the checks see them."""

    environ: Mapping[str, str]
    # A value of `sys.platform`.
    platform: str
    paths: Paths
    # The settings of this shell and its file; None if the daemon would refuse them.
    loaded: LoadedSettings | None
    running: Running | None
    # Why no daemon answers.
    silent: CommandError | None
    manager: ServiceManager
    # Runs a command of the platform.
    run: Runner
    # Unix time.
    now: float

    @property
    def settings(self) -> Settings:
        """Those of the running daemon, or those that a new one would have."""
        if self.running:
            return self.running.settings
        return self.loaded.settings if self.loaded else Settings()

    @property
    def how_to_replace(self) -> str:
        """The command that ends the running daemon, so that an installed service starts anew."""
        installed = self.manager.file.exists()
        return "anyclaudectl service install" if installed else "anyclaudectl shutdown"


Check = Callable[[Examined], Iterable[Finding]]


def ok(what: str) -> Finding:
    return Finding(Level.OK, what)


def warning(what: str, why: str, fix: str) -> Finding:
    return Finding(Level.WARNING, what, why, fix)


def problem(what: str, why: str, fix: str) -> Finding:
    return Finding(Level.PROBLEM, what, why, fix)


def run_check(check: Check, examined: Examined) -> list[Finding]:
    """The findings of one check; a check that fails is a finding too, and the others still run."""
    try:
        return list(check(examined))
    except Exception as error:  # noqa: BLE001 - the error is reported as a finding
        return [
            problem(
                f"This check failed: {type(error).__name__}: {error}.",
                "Either what it looks at is broken, or the check itself.",
                "anyclaudectl bugreport",
            )
        ]


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command; one that is missing or hangs has failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
