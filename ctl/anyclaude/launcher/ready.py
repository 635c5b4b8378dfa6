"""Makes sure that the service answers before Claude Code starts.

An installed service is started. Without one a person is asked whether to install it, and a script
gets an error that says how. While a model loads, the launcher waits and says so.
"""

import sys
import sysconfig
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from anyclaude.cli.bundle import launch_mode_of
from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.service import lifecycle
from anyclaude.cli.service.manager import ServiceManager
from anyclaude.cli.service.record import found_in
from anyclaude.cli.waiting import describe, wait_for_service
from anyclaude.control.v1 import control_pb2
from anyclaude.runtime.mode_names import current_name
from anyclaude.runtime.paths import Paths

# A large model from a slow disk takes minutes; Ctrl-C ends the wait earlier.
_READY_SECONDS: Final = 600.0


def reach(paths: Paths, environ: Mapping[str, str]) -> ControlClient:
    """Connects to the daemon; starts the installed service if it is not running.

    Raises:
        CommandError: NOT_RUNNING or TIMEOUT, saying what to do.
    """
    try:
        return ControlClient(paths.control_socket)
    except CommandError as error:
        if error.code is not ExitCode.NOT_RUNNING:
            raise
        _start_service(paths, environ, error)
    return ControlClient(paths.control_socket)


def ensure_ready(client: ControlClient, paths: Paths, environ: Mapping[str, str]) -> None:
    """Returns once the mode of this launch answers requests.

    Raises:
        CommandError: NOT_RUNNING, DEGRADED, PRECONDITION or TIMEOUT, saying what to do.
    """
    status, modes = client.status(), client.modes()
    wanted = _launch_mode(environ, [mode.name for mode in modes.modes])
    if wanted and wanted != status.mode:
        _check_launch_mode(wanted, modes)
        return
    if status.is_serving:
        _print_notes(status)
        return
    print(f"{describe(status)} Waiting until it is ready ...", file=sys.stderr)
    wait_for_service(paths.control_socket, ready=True, timeout_seconds=_READY_SECONDS)
    _print_notes(client.status())


def _print_notes(status: control_pb2.Status) -> None:
    """Prints what the user should know before the session begins."""
    for sentence in [*status.notices, *status.problems]:
        print(f"Note: {sentence}", file=sys.stderr)


def _start_service(paths: Paths, environ: Mapping[str, str], why: CommandError) -> None:
    manager = lifecycle.find_manager(sys.platform, environ)
    if not manager.file.exists():
        if not _wants_service():
            raise why
        _install_service(manager, paths, environ)
        return
    print("Starting the anyclaude service ...", file=sys.stderr)
    lifecycle.start(manager, paths)


def _wants_service() -> bool:
    """Asks a person at a terminal whether to install the service; False in a script."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print("The anyclaude service is not installed. It starts at login and answers", file=sys.stderr)
    print("Claude Code on this machine. Install and start it now? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _install_service(manager: ServiceManager, paths: Paths, environ: Mapping[str, str]) -> None:
    program = lifecycle.find_program(Path(sysconfig.get_path("scripts")), paths, environ)
    wanted = found_in(environ, paths.config_file, Path.cwd())
    done = lifecycle.install(manager, program, wanted, paths)
    print(f"Installed: {manager.file}. anyclauded runs as pid {done.pid}.", file=sys.stderr)


def _launch_mode(environ: Mapping[str, str], known: Collection[str]) -> str:
    wanted, given = launch_mode_of(environ, known), environ.get("ANYCLAUDE_MODE", "")
    if wanted != given:
        print(f"ANYCLAUDE_MODE: {current_name(given)[1]}", file=sys.stderr)
    return wanted


def _check_launch_mode(wanted: str, modes: control_pb2.GetModeResponse) -> None:
    found = next((mode for mode in modes.modes if mode.name == wanted), None)
    if found is None:
        known = ", ".join(mode.name for mode in modes.modes)
        raise CommandError(
            ExitCode.USAGE, f"ANYCLAUDE_MODE={wanted} is not a mode. Known modes: {known}."
        )
    if not found.ready:
        raise CommandError(
            ExitCode.PRECONDITION,
            f"Mode {wanted} (ANYCLAUDE_MODE) is not ready: {found.reason or 'no reason given'}",
        )
    if found.switch_policy == control_pb2.SWITCH_POLICY_STOP_FIRST:
        print(
            f"Note: Mode {wanted} is stop-first, but a mode of one launch stops nothing: both "
            f"models share the memory. `anyclaudectl mode {wanted}` stops the MLX worker first.",
            file=sys.stderr,
        )
