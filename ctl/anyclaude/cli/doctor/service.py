"""Checks of the daemon: whether it runs, is whole, and can listen."""

import fcntl
import os
import socket
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.doctor.finding import Examined, Finding, ok, problem, warning
from anyclaude.cli.service import lifecycle, protected
from anyclaude.control.v1 import control_pb2
from anyclaude.runtime.ports import explain_owner


def daemon(examined: Examined) -> Iterator[Finding]:
    """Whether a daemon answers, and answers requests."""
    if examined.running is None:
        yield from _silent(examined)
        return
    status = examined.running.status
    yield ok(f"anyclauded {status.version} runs as pid {status.pid} at {status.base_url}.")
    fatal = [w.name for w in status.workers if w.state == control_pb2.WORKER_STATE_FATAL]
    for sentence in status.problems:
        yield problem(
            sentence,
            "Requests are refused, or wait, until this is mended.",
            f"anyclaudectl worker restart {fatal[0]}" if fatal else "",
        )
    for sentence in status.notices:
        yield warning(sentence, "", "")


def lock(examined: Examined) -> Iterator[Finding]:
    """Whether a daemon without a socket keeps others from starting."""
    if examined.running or not examined.paths.lock_file.exists():
        return
    with examined.paths.lock_file.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read(32).strip() or "unknown"
            yield problem(
                f"Process {pid} has the lock {examined.paths.lock_file}, but does not answer.",
                "It is a daemon that is stuck or whose socket was deleted; no other can start.",
                f"kill {pid}",
            )


def version(examined: Examined) -> Iterator[Finding]:
    """Whether the running daemon is the installed one."""
    own = metadata.version("anyclaude")
    if examined.running and examined.running.status.version != own:
        yield warning(
            f"The daemon has version {examined.running.status.version}, this command {own}.",
            "Commands that the older of the two does not know fail.",
            examined.how_to_replace,
        )


def description(examined: Examined) -> Iterator[Finding]:
    """Whether the service's description names a program that exists."""
    if not examined.manager.file.exists():
        return
    program = examined.manager.installed_program()
    if program is None or not program.exists():
        yield problem(
            f"{examined.manager.file} starts {program or 'no program'}, which does not exist.",
            "The installation was moved or removed, so the service does not start at login.",
            "anyclaudectl service install",
        )
    else:
        yield ok(f"The service starts {program}.")


def protected_folders(examined: Examined) -> Iterator[Finding]:
    """On a Mac: whether the service may read what it needs."""
    if examined.platform != "darwin" or not examined.manager.file.exists():
        return
    scripts = Path(sysconfig.get_path("scripts"))
    program = lifecycle.find_program(scripts, examined.paths, examined.environ)
    model = examined.settings.model.path
    places = protected.read_by(program, examined.paths, model, examined.environ, Path.cwd())
    for sentence in protected.warnings(places, Path.home()):
        yield warning(sentence, "", "")


def port(examined: Examined) -> Iterator[Finding]:
    """Whether the daemon can listen on its port."""
    server = examined.settings.server
    if examined.running or not server.port:
        return
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        # As the daemon does, or a connection that has just ended would keep the port.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((server.host, server.port))
            trial.listen(1)
        except OSError:
            yield problem(
                f"Port {server.port} cannot be used: {explain_owner(server.port)}",
                "The daemon does not start without its port.",
                f"anyclaudectl config set server.port {_free_port(server.host, family)}",
            )
            return
    yield ok(f"Port {server.port} is free.")


def open_files(examined: Examined) -> Iterator[Finding]:
    """Whether a daemon that is started in this shell may open enough files."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not examined.manager.file.exists() and 0 <= soft < 1024:
        yield warning(
            f"This shell allows {soft} open files.",
            "`anyclauded` started here fails with many connections at a time.",
            "ulimit -n 8192",
        )


def python(examined: Examined) -> Iterator[Finding]:
    """On a Mac: whether this Python runs without emulation."""
    machine = os.uname().machine
    if examined.platform == "darwin" and machine != "arm64":
        yield problem(
            f"This Python runs as {machine} (Rosetta).",
            "MLX needs an arm64 Python.",
            "brew install python@3.13",
        )
    else:
        yield ok(f"Python {sys.version.split()[0]} on {machine}.")


def _silent(examined: Examined) -> Iterator[Finding]:
    assert examined.silent is not None
    installed = examined.manager.file.exists()
    if examined.silent.code is not ExitCode.NOT_RUNNING:
        yield problem(examined.silent.message, "No command works.", "anyclaudectl logs")
        return
    error: CommandError = lifecycle.with_boot_messages(
        examined.silent, examined.manager, examined.paths
    )
    yield problem(
        error.message,
        "Claude Code gets no answer.",
        "anyclaudectl service start" if installed else "anyclaudectl service install",
    )


def _free_port(host: str, family: socket.AddressFamily) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.bind((host, 0))
        return int(trial.getsockname()[1])
