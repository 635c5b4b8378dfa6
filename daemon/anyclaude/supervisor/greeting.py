"""Tells a person who started the daemon in a terminal when it is ready, and what to type next."""

import shutil
import sys
from pathlib import Path
from typing import Final

from anyclaude.control.v1 import control_pb2
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.status import readiness

_LAUNCHER: Final = "anyclaude"


async def greet(daemon: Daemon) -> None:
    """Prints one line when the current mode is ready for the first time."""
    if not sys.stdout.isatty():
        return
    print("Starting. The first answer needs the model, which is being loaded ...", flush=True)
    version = daemon.changes.version
    while readiness(daemon) != control_pb2.READINESS_READY:
        version = await daemon.changes.after(version)
    print(f"Ready. Now type this in another terminal: {_command()}", flush=True)


def _command() -> str:
    """The launcher of this installation, as a shell finds it."""
    own = Path(sys.executable).with_name(_LAUNCHER)
    found = shutil.which(_LAUNCHER)
    return str(own) if own.exists() and found != str(own) else _LAUNCHER
