"""The real servers as child processes: llama.cpp's and vllm-mlx, on free ports."""

import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Self

import httpx

from anyclaude.mlx.demo import MODEL_PATH
from tests.checkout import ROOT
from tests.integration.mlx_server import free_port

INSTALLED: Final = ROOT / ".upstreams"
LLAMA_WINDOW_TOKENS: Final = 32768
_LLAMA_SLOTS: Final = 2
_START_SECONDS: Final = 120
_LLAMA: Final = INSTALLED / "llama-cpp"
_VLLM_MLX: Final = INSTALLED / "vllm-mlx" / "bin"

# The name by which vllm-mlx serves its model.
SERVED_MODEL: Final = "served"


class Server(ABC):
    """Runs a command that serves HTTP on a port; a context manager that always ends it."""

    def __init__(self, command: Sequence[str | Path], version: str) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.version = version
        self.command = [*map(str, command), "--host", "127.0.0.1", "--port", str(self.port)]

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self.command,
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

    @property
    def pid(self) -> int:
        return self._process.pid

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.base_url}{path}", trust_env=False).json()

    def _wait(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if httpx.get(f"{self.base_url}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        self._log.seek(0)
        raise AssertionError(f"{self.command[0]} did not start: {self._log.read()[-2000:]}")

    @abstractmethod
    def running(self) -> int:
        """How many answers it computes right now."""


class LlamaCpp(Server):
    """llama.cpp's own server on the demo model, or another of its kind, written as GGUF."""

    def __init__(
        self,
        file: Path,
        *change: str,
        model: Path = MODEL_PATH,
        slots: int = _LLAMA_SLOTS,
        more: Sequence[str] = (),
    ) -> None:
        script = Path(__file__).with_name("gguf_demo.py")
        subprocess.run([_LLAMA / "bin" / "python", script, model, file, *change], check=True)
        window = str(LLAMA_WINDOW_TOKENS * slots)
        # As the model's own settings say, which llama.cpp does not read.
        greedy = ("--temp", "0")
        options = ("--ctx-size", window, "--parallel", str(slots), "--no-ui", *greedy)
        program = _LLAMA / "llama-server"
        super().__init__([program, "--model", file, *options, *more], _version(program))

    def running(self) -> int:
        return sum(slot["is_processing"] for slot in self.get("/slots"))


class VllmMlx(Server):
    """vllm-mlx on a model folder."""

    def __init__(self, model: Path, *options: str) -> None:
        program = _VLLM_MLX / "vllm-mlx"
        command: list[str | Path] = [program, "serve", model]
        command += ["--served-model-name", SERVED_MODEL, "--offline", *options]
        super().__init__(command, _package_version(_VLLM_MLX / "python", "vllm-mlx"))

    def running(self) -> int:
        return int(self.get("/v1/status")["num_running"])


class MlxLm(Server):
    """mlx_lm.server of the service's own environment."""

    def __init__(self, model: Path) -> None:
        command: list[str | Path] = [sys.executable, "-m", "mlx_lm", "server", "--model", model]
        super().__init__(command, metadata.version("mlx-lm"))

    def running(self) -> int:
        raise NotImplementedError("mlx_lm.server does not say")


def _version(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip().splitlines()[0].removeprefix("version: ")


def _package_version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
