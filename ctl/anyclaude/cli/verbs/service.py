"""`anyclaudectl service`: the daemon as a user service, installed, started, stopped, shown."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from anyclaude.cli.command import ExitCode, own_paths
from anyclaude.cli.output import Json, emit, facts, note, report

if TYPE_CHECKING:
    from anyclaude.cli.service.manager import Program, ServiceManager
    from anyclaude.runtime.paths import Paths

app = typer.Typer(help="Run the daemon as a service of your session.", no_args_is_help=True)


@app.command("install")
def install(json: Json = False) -> None:
    """Install or update the service and start it. Records ANYCLAUDE_MODEL and other variables."""
    import sysconfig

    from anyclaude.cli.service import lifecycle
    from anyclaude.cli.service.record import found_in

    paths, manager = own_paths(), _manager()
    program = lifecycle.find_program(Path(sysconfig.get_path("scripts")), paths, os.environ)
    wanted = found_in(os.environ, paths.config_file, Path.cwd())
    warnings = _warnings(program, paths)
    for warning in warnings:
        note(f"Warning: {warning}")
    done = lifecycle.install(manager, program, wanted, paths)
    for setting in done.recorded:
        note(f"Recorded {setting.variable} as {setting.key} in {paths.config_file}.")
    document = {
        "file": str(manager.file),
        "changed": done.changed,
        "recorded": [
            {"variable": s.variable, "key": s.key, "value": s.value} for s in done.recorded
        ],
        "pid": done.pid,
        "warnings": warnings,
    }
    what = "Installed" if done.changed else "Already installed"
    report(document, f"{what}: {manager.file}. anyclauded runs as pid {done.pid}.", json=json)


@app.command("uninstall")
def uninstall(json: Json = False) -> None:
    """Stop the service and remove it; settings, caches and logs stay."""
    from anyclaude.cli.service import lifecycle

    manager = _manager()
    removed = lifecycle.uninstall(manager)
    document = {"file": str(manager.file), "removed": removed}
    sentence = f"Removed {manager.file}." if removed else "The service is not installed."
    report(document, sentence, json=json)


@app.command("start")
def start(json: Json = False) -> None:
    """Start the installed service."""
    from anyclaude.cli.service import lifecycle

    pid = lifecycle.start(_manager(), own_paths())
    report({"pid": pid}, f"anyclauded runs as pid {pid}.", json=json)


@app.command("stop")
def stop(json: Json = False) -> None:
    """Stop the service until the next login or `service start`."""
    from anyclaude.cli.service import lifecycle

    was_running = lifecycle.stop(_manager())
    sentence = "The service has stopped." if was_running else "The service was not running."
    report({"was_running": was_running}, sentence, json=json)


@app.command("restart")
def restart(json: Json = False) -> None:
    """Restart the installed service; running answers may finish first."""
    from anyclaude.cli.service import lifecycle

    pid = lifecycle.restart(_manager(), own_paths())
    report({"pid": pid}, f"anyclauded runs as pid {pid}.", json=json)


@app.command("status")
def status(json: Json = False) -> None:
    """Show the state in launchd or systemd. Exit 3: not running; 4: not installed."""
    manager = _manager()
    state = manager.state()
    installed = manager.file.exists()
    document: dict[str, Any] = {
        "file": str(manager.file),
        "installed": installed,
        "loaded": state.loaded,
        "running": state.running,
        "pid": state.pid,
    }
    if json:
        emit(document)
    else:
        facts(
            [
                ("Service", "installed" if installed else "not installed"),
                ("File", str(manager.file)),
                ("Running", f"pid {state.pid}" if state.running else "no"),
            ]
        )
    if not state.running:
        raise typer.Exit(ExitCode.NOT_RUNNING if installed else ExitCode.NOT_FOUND)


def _warnings(program: "Program", paths: "Paths") -> list[str]:
    """What the service may not be able to read on macOS."""
    if sys.platform != "darwin":
        return []
    from anyclaude.cli.service import protected
    from anyclaude.runtime.loading import load

    model = load(paths.config_file, os.environ).settings.model.path
    places = protected.read_by(program, paths, model, os.environ, Path.cwd())
    return protected.warnings(places, Path.home())


def _manager() -> "ServiceManager":
    from anyclaude.cli.service.lifecycle import find_manager

    return find_manager(sys.platform, os.environ)
