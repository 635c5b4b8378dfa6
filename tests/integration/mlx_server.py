"""A real mlx_lm.server, as somebody else's OpenAI server."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

START_SECONDS = 90


class MlxServer:
    """Serves a model folder on a free port; a context manager that always ends it."""

    def __init__(self, model: Path) -> None:
        self._model = model

    def __enter__(self) -> "MlxServer":
        port = _free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlx_lm", "server", "--model", str(self._model)),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
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
            try:
                if httpx.get(f"{self.base_url}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self._log.seek(0)
        raise AssertionError(f"mlx_lm.server did not start: {self._log.read()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
