"""What both service managers can do; the verbs know no more than this."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from anyclaude.cli.clock import SYSTEM_CLOCK, Clock
from anyclaude.cli.exits import CommandError, ExitCode
from anyclaude.cli.service.runner import Runner
from anyclaude.runtime.paths import Paths

# A service starts with next to no environment: what places files comes along. No secrets here, the
# file is readable by everybody.
_KEPT_VARIABLES: Final = (
    "ANYCLAUDE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
)
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Program:
    """What the service runs."""

    executable: Path
    environment: Mapping[str, str]
    # Only what dies before the daemon's own log begins lands here.
    boot_log: Path


@dataclass(frozen=True)
class ServiceState:
    """What the service manager says."""

    # Known to the service manager, running or not.
    loaded: bool
    running: bool
    pid: int | None


class ServiceManager(Protocol):
    """launchd or systemd."""

    @property
    def file(self) -> Path:
        """Where the service's description belongs."""

    def render(self, program: Program) -> bytes:
        """The content of `file`."""

    def state(self) -> ServiceState: ...

    def activate(self) -> None:
        """Takes in a new or changed file, and (re)starts the service from it."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Returns once the service has ended; it starts again at the next login."""

    def restart(self) -> None: ...

    def forget(self) -> None:
        """Stops the service for good; the caller has yet to remove the file."""

    def forgotten(self) -> None:
        """Called once the file is removed."""


def manager_for(
    platform: str, environ: Mapping[str, str], run: Runner, clock: Clock = SYSTEM_CLOCK
) -> ServiceManager:
    """The service manager of `platform` (as `sys.platform` names it)."""
    from anyclaude.cli.service.launchd import Launchd
    from anyclaude.cli.service.systemd import Systemd

    home = Path(environ.get("HOME") or Path.home())
    if platform == "darwin":
        return Launchd(home=home, uid=os.getuid(), run=run, clock=clock)
    config = environ.get("XDG_CONFIG_HOME")
    return Systemd(config=Path(config) if config else home / ".config", run=run)


def find_program(scripts: Path, paths: Paths, environ: Mapping[str, str]) -> Program:
    """The daemon of the installation whose commands lie in `scripts`.

    Raises:
        CommandError: PRECONDITION when it holds no `anyclauded`.
    """
    executable = scripts / "anyclauded"
    if not executable.exists():
        raise CommandError(
            ExitCode.PRECONDITION,
            f"There is no {executable}: this installation is incomplete. "
            f"Install it again with `{sys.executable} -m pip install anyclaude` or `make setup`.",
        )
    return Program(executable, _environment(scripts, environ), paths.logs / "anyclauded.boot.log")


def _environment(scripts: Path, environ: Mapping[str, str]) -> dict[str, str]:
    fixed = {
        "PATH": f"{scripts}:{_SYSTEM_PATH}",
        "LANG": environ.get("LANG") or "en_US.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }
    kept = {name: environ[name] for name in _KEPT_VARIABLES if environ.get(name)}
    return fixed | kept
