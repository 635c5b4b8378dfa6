"""The list of checks, in the order in which they are reported, and what they look at."""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Final

from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import CommandError
from anyclaude.cli.doctor import files, model, servers, service, settings
from anyclaude.cli.doctor.finding import Check, Examined, Running, run_command
from anyclaude.cli.service.lifecycle import find_manager
from anyclaude.runtime.loading import LoadedSettings, SettingsError, from_entries, load
from anyclaude.runtime.paths import find_paths

CHECKS: Final[Mapping[str, Check]] = {
    "service": service.daemon,
    "lock": service.lock,
    "version": service.version,
    "installed service": service.description,
    "protected folders": service.protected_folders,
    "port": service.port,
    "open files": service.open_files,
    "python": service.python,
    "settings": settings.settings,
    "variables": settings.variables,
    "other settings": settings.overridden,
    "proxy": settings.proxy,
    "address": settings.address,
    "hidden settings": settings.hidden,
    "named files": settings.folders,
    "claude code": servers.claude,
    "servers": servers.servers,
    "model": model.model,
    "memory": model.memory,
    "blas": model.blas,
    "permissions": files.permissions,
    "disk": files.disk,
    "writing": files.failed_writes,
    "old records": files.old_records,
    "clock": files.clock,
    "logs": files.logs,
}


def examine(environ: Mapping[str, str] = os.environ) -> Examined:
    """This machine as it is now; asks the daemon if one answers."""
    paths = find_paths(environ)
    running: Running | None = None
    silent: CommandError | None = None
    try:
        with ControlClient(paths.control_socket) as client:
            entries = [(each.key, json.loads(each.value_json)) for each in client.config().entries]
            running = Running(client.status(), client.modes(), from_entries(entries))
    except CommandError as error:
        silent = error
    return Examined(
        environ=environ,
        platform=sys.platform,
        paths=paths,
        loaded=_loaded(environ),
        running=running,
        silent=silent,
        manager=find_manager(sys.platform, environ),
        run=run_command,
        now=time.time(),
    )


def _loaded(environ: Mapping[str, str]) -> LoadedSettings | None:
    try:
        return load(find_paths(environ).config_file, environ)
    except SettingsError:
        return None
