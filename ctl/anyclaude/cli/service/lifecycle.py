"""Installs, starts, stops and removes the service, on either service manager.

`install` checks everything before it changes anything, and changes nothing that is right already.
It succeeds only when the process that was started responds on the control socket.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import SYSTEM_CLOCK, Clock, CommandError, ExitCode
from anyclaude.cli.service.launchd import Launchd
from anyclaude.cli.service.manager import (
    Program,
    Runner,
    ServiceManager,
    ServiceState,
    run_command,
)
from anyclaude.cli.service.systemd import Systemd
from anyclaude.cli.waiting import wait_for_service
from anyclaude.runtime.paths import Paths, write_if_changed

if TYPE_CHECKING:
    from anyclaude.cli.service.record import Recorded

_ANSWER_SECONDS: Final = 30.0
_QUOTED_LINES: Final = 10
# EPERM, which macOS gives a service that reads a protected folder.
_NOT_PERMITTED: Final = "Operation not permitted"
_FILE_MODE: Final = 0o644
# A service starts with almost no environment, so these are written into its description: they say
# where files are, and which BLAS MLX uses. Everybody can read that file, so it must not hold a
# secret.
_KEPT_VARIABLES: Final = (
    "ANYCLAUDE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "OPENBLAS_NUM_THREADS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
)
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Installed:
    """The result of `install`."""

    # Whether the service's description was new or different.
    changed: bool
    # Settings of the shell that were added to the config file.
    recorded: "list[Recorded]"
    # The process id of the daemon that answers now.
    pid: int


def find_manager(
    platform: str,
    environ: Mapping[str, str],
    run: Runner = run_command,
    clock: Clock = SYSTEM_CLOCK,
) -> ServiceManager:
    """The service manager of `platform`, a value of `sys.platform`."""
    home = Path(environ.get("HOME") or Path.home())
    if platform == "darwin":
        return Launchd(home=home, uid=os.getuid(), run=run, clock=clock)
    config = environ.get("XDG_CONFIG_HOME")
    return Systemd(config=Path(config) if config else home / ".config", run=run)


def find_program(scripts: Path, paths: Paths, environ: Mapping[str, str]) -> Program:
    """The daemon of the installation whose commands are in the folder `scripts`.

    Raises:
        CommandError: PRECONDITION when the folder holds no `anyclauded`.
    """
    executable = scripts / "anyclauded"
    if not executable.exists():
        raise CommandError(
            ExitCode.PRECONDITION,
            f"There is no {executable}: this installation is incomplete. "
            f"Install it again with `{sys.executable} -m pip install anyclaude` or `make setup`.",
        )
    environment = {
        "PATH": f"{scripts}:{_SYSTEM_PATH}",
        "LANG": environ.get("LANG") or "en_US.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }
    environment |= {name: environ[name] for name in _KEPT_VARIABLES if environ.get(name)}
    return Program(executable, environment, paths.logs / "anyclauded.boot.log")


def install(
    manager: ServiceManager,
    program: Program,
    wanted: "list[Recorded]",
    paths: Paths,
    clock: Clock = SYSTEM_CLOCK,
) -> Installed:
    """Installs, updates and starts the service; a second run changes nothing.

    Raises:
        CommandError: PRECONDITION when a daemon runs that is not the service, FAILED or TIMEOUT
            when the service does not come up.
    """
    # It imports the settings, which the other functions do not need.
    from anyclaude.cli.service.record import record

    content = manager.render(program)
    before = manager.state()
    refuse_stranger(paths.control_socket, before)
    paths.create()
    recorded = record(paths.config_file, wanted)
    changed = write_if_changed(manager.file, content, _FILE_MODE)
    if changed or not before.loaded:
        manager.activate()
    elif not before.running:
        manager.start()
    elif recorded:
        manager.restart()
    return Installed(changed, recorded, verify(manager, paths, clock))


def start(manager: ServiceManager, paths: Paths, clock: Clock = SYSTEM_CLOCK) -> int:
    """Starts the installed service; returns the pid of the daemon that answers.

    Raises:
        CommandError: PRECONDITION when none is installed or a daemon runs that is not the service.
    """
    require_installed(manager)
    before = manager.state()
    refuse_stranger(paths.control_socket, before)
    if not before.running:
        manager.start()
    return verify(manager, paths, clock)


def restart(manager: ServiceManager, paths: Paths, clock: Clock = SYSTEM_CLOCK) -> int:
    """Restarts the installed service; returns the pid of the daemon that answers.

    Raises:
        CommandError: as `start`.
    """
    require_installed(manager)
    refuse_stranger(paths.control_socket, manager.state())
    manager.restart()
    return verify(manager, paths, clock)


def stop(manager: ServiceManager) -> bool:
    """Stops the service; False when it was not running.

    Raises:
        CommandError: PRECONDITION when none is installed.
    """
    require_installed(manager)
    was_running = manager.state().running
    manager.stop()
    return was_running


def uninstall(manager: ServiceManager) -> bool:
    """Stops the service and removes its file, and nothing else; False when there was none."""
    if not manager.file.exists() and not manager.state().loaded:
        return False
    manager.remove()
    return True


def require_installed(manager: ServiceManager) -> None:
    if not manager.file.exists():
        raise CommandError(
            ExitCode.PRECONDITION,
            f"The service is not installed: there is no {manager.file}. "
            "Install it: `anyclaudectl service install`.",
        )


def refuse_stranger(socket_path: Path, state: ServiceState) -> None:
    """Raises PRECONDITION if a daemon runs that is not the service: it has the lock and the
    port."""
    pid = answering_pid(socket_path)
    if pid is not None and pid != state.pid:
        raise CommandError(
            ExitCode.PRECONDITION,
            f"anyclauded runs already (pid {pid}), but not as the service. "
            "Stop it first: `anyclaudectl shutdown`.",
        )


def answering_pid(socket_path: Path) -> int | None:
    """The process id of the daemon that answers on the socket, or None."""
    try:
        with ControlClient(socket_path) as client:
            return client.status().pid
    except CommandError as error:
        if error.code is ExitCode.NOT_RUNNING:
            return None
        raise


def verify(manager: ServiceManager, paths: Paths, clock: Clock) -> int:
    """Waits until the service's own daemon answers; returns its process id."""
    try:
        status = wait_for_service(
            paths.control_socket, ready=False, timeout_seconds=_ANSWER_SECONDS, clock=clock
        )
    except CommandError as error:
        failure = CommandError(
            error.code,
            f"The service was started but does not answer. {error.message} "
            "See `anyclaudectl service status` and `anyclaudectl logs`.",
        )
        raise with_boot_messages(failure, manager, paths) from None
    pid = manager.state().pid
    if pid is not None and pid != status.pid:
        raise CommandError(
            ExitCode.FAILED,
            f"The service runs as pid {pid}, but pid {status.pid} answers on "
            f"{paths.control_socket}. Stop that one: `anyclaudectl shutdown`.",
        )
    return status.pid


def with_boot_messages(error: CommandError, manager: ServiceManager, paths: Paths) -> CommandError:
    """The error, with what an installed service printed when it ended before its log began.

    A daemon that starts well writes into its own log, so older messages are about an earlier start.
    """
    if not manager.file.exists():
        return error
    log = paths.log_file
    lines = manager.boot_messages(log.stat().st_mtime if log.exists() else 0.0).splitlines()
    if not lines:
        return error
    quoted = "\n".join(f"  {line}" for line in lines[-_QUOTED_LINES:])
    message = f"{error.message}\nBefore its own log began, the service printed:\n{quoted}"
    if any(_NOT_PERMITTED in line for line in lines[-_QUOTED_LINES:]):
        message += (
            "\nmacOS keeps services from Documents, Desktop, Downloads, iCloud Drive and other "
            "volumes: move what it names, then `anyclaudectl service install`."
        )
    return CommandError(error.code, message)
