"""The service under test: `anyclauded` on the demo model, in a namespace, with its own home."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.namespace import Namespace

_READY_SECONDS = 60
_STOP_SECONDS = 30
_LOG_TAIL_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Service:
    """A started daemon."""

    namespace: Namespace
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    port: int
    log: Path

    @classmethod
    def start(cls, namespace: Namespace, home: Path, log: Path) -> "Service":
        """Start the daemon with its state under `home` (a short path) and its output in `log`."""
        port = _free_port()
        environment = {
            "HOME": str(home),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "ANYCLAUDE_HOME": str(home / "state"),
            "ANYCLAUDE_PORT": str(port),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                namespace.command([sys.executable, "-m", "anyclaude.daemon"]),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return cls(namespace, process, environment, port, log)

    @property
    def base_url(self) -> str:
        """What a client inside the namespace calls."""
        return f"http://127.0.0.1:{self.port}"

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `anyclaudectl` with these arguments."""
        return subprocess.run(
            self.namespace.command([sys.executable, "-m", "anyclaude.ctl", *arguments]),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_READY_SECONDS + 30,
            check=False,
        )

    def wait_ready(self) -> None:
        """Return once the service answers requests; fail with its log if it does not."""
        waited = self.control("wait", "--ready", "--timeout", str(_READY_SECONDS))
        assert waited.returncode == 0, f"{waited.stdout}{waited.stderr}\n{self.log_tail()}"

    def stop(self) -> int:
        """Ask the daemon to stop and return its exit code; one that hangs is killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def log_tail(self) -> str:
        """The end of what the daemon wrote, to show beside a failure."""
        return self.log.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]


def _free_port() -> int:
    """A port from the system's range of free ones; the new namespace has none in use at all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
