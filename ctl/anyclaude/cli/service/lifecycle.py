"""What the service verbs do, in terms of either service manager.

`install` checks everything before it changes anything, changes nothing that is right already, and
believes in success only when the control socket answers from the very process that was started.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyclaude.cli.client import ControlClient
from anyclaude.cli.clock import SYSTEM_CLOCK, Clock
from anyclaude.cli.exits import CommandError, ExitCode
from anyclaude.cli.service.manager import Program, ServiceManager, ServiceState
from anyclaude.cli.service.record import Recorded, record
from anyclaude.cli.waiting import wait_for_service
from anyclaude.runtime.files import write_if_changed
from anyclaude.runtime.paths import Paths

_ANSWER_SECONDS: Final = 30.0
_FILE_MODE: Final = 0o644


@dataclass(frozen=True)
class Installed:
    """What `install` found and did."""

    # The service's description was new or different.
    changed: bool
    # Settings taken over from the shell that the config file did not have.
    recorded: list[Recorded]
    # The daemon that answers now.
    pid: int


def install(
    manager: ServiceManager,
    program: Program,
    wanted: list[Recorded],
    paths: Paths,
    clock: Clock = SYSTEM_CLOCK,
) -> Installed:
    """Installs, updates and starts the service; a second run changes nothing.

    Raises:
        CommandError: PRECONDITION when a daemon runs that is not the service, FAILED or TIMEOUT
            when the service does not come up.
    """
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
    return Installed(changed, recorded, verify(manager, paths.control_socket, clock))


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
    return verify(manager, paths.control_socket, clock)


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
    manager.forget()
    manager.file.unlink(missing_ok=True)
    manager.forgotten()
    return True


def require_installed(manager: ServiceManager) -> None:
    if not manager.file.exists():
        raise CommandError(
            ExitCode.PRECONDITION,
            f"The service is not installed: there is no {manager.file}. "
            "Install it: `anyclaudectl service install`.",
        )


def refuse_stranger(socket_path: Path, state: ServiceState) -> None:
    """A daemon started by hand holds the lock and the port: the service could not start."""
    pid = answering_pid(socket_path)
    if pid is not None and pid != state.pid:
        raise CommandError(
            ExitCode.PRECONDITION,
            f"anyclauded runs already (pid {pid}), and not as the service. "
            "Stop it first: `anyclaudectl shutdown`.",
        )


def answering_pid(socket_path: Path) -> int | None:
    """The pid of the daemon behind the socket, None when there is none."""
    try:
        with ControlClient(socket_path) as client:
            return client.status().pid
    except CommandError as error:
        if error.code is ExitCode.NOT_RUNNING:
            return None
        raise


def verify(manager: ServiceManager, socket_path: Path, clock: Clock) -> int:
    """Waits until the service's own daemon answers."""
    try:
        status = wait_for_service(
            socket_path, ready=False, timeout_seconds=_ANSWER_SECONDS, clock=clock
        )
    except CommandError as error:
        raise CommandError(
            error.code,
            f"The service was started but does not answer. {error.message} "
            "See `anyclaudectl service status` and `anyclaudectl logs`.",
        ) from None
    pid = manager.state().pid
    if pid is not None and pid != status.pid:
        raise CommandError(
            ExitCode.FAILED,
            f"The service runs as pid {pid}, but pid {status.pid} answers on {socket_path}. "
            "Stop that one: `anyclaudectl shutdown`.",
        )
    return status.pid
