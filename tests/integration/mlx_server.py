"""A real mlx_lm.server, used as an OpenAI server of the user."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

START_SECONDS = 90
_LISTENING = "Starting httpd"


class MlxServer:
    """Serves a model folder on a free port; a context manager that always ends it."""

    def __init__(self, model: Path, within: Callable[[Sequence[str]], list[str]] = list) -> None:
        """
        Args:
            model: a model folder.
            within: makes of a command the one that runs it in a sandbox.
        """
        self._model = model
        self._within = within

    def __enter__(self) -> "MlxServer":
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")
        command = [
            *(sys.executable, "-m", "mlx_lm", "server", "--model", str(self._model)),
            *("--host", "127.0.0.1", "--port", str(port)),
        ]
        self._process = subprocess.Popen(
            self._within(command),
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        self._log.close()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            # Its log and no request, which could not reach into a sandbox.
            if _LISTENING in self._said():
                return
            time.sleep(0.1)
        raise AssertionError(f"mlx_lm.server did not start: {self._said()[-2000:]}")

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
