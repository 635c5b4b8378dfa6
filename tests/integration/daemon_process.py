"""A real `anyclauded` with scripted children, under a home of its own."""

import sys
from pathlib import Path
from typing import Any, Final

from tests.integration.service import Service

SCRIPT: Final = Path(__file__).parent / "scripted" / "daemon.py"
# Quick enough for tests, slow enough for a loaded machine.
QUICK: Final = {
    "ANYCLAUDE__SUPERVISOR__BACKOFF_INITIAL_SECONDS": "0.05",
    "ANYCLAUDE__SUPERVISOR__STOP_TIMEOUT_SECONDS": "10",
}


class DaemonProcess(Service):
    """A service whose worker has the given behaviour; see `scripted/child.py`."""

    def __init__(
        self, worker: str = "ready", *flags: str, home: Path | None = None, **environ: str
    ) -> None:
        routes = "routes.json"
        command = (sys.executable, str(SCRIPT), routes, worker)
        variables: dict[str, Any] = QUICK | environ
        super().__init__(*flags, home=home, command=command, **variables)
        self.routes_file = self.home / routes
