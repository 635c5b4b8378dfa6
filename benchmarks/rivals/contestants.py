"""The servers that are compared, each with the same model; each can be killed and started again."""

import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from anyclaude.cli.bench.endpoint import Dialect, Endpoint
from tests.integration.scripted_upstream import ScriptedUpstream
from tests.integration.service import Service
from tests.upstreams.servers import INSTALLED, SERVED_MODEL, LlamaCpp, MlxLm, Server, VllmMlx

# Longer than any of the work takes; a server that hangs then counts as failed.
READ_SECONDS: Final = 120.0
STREAMS: Final = 8
_NO_MODELS: Final = (
    b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"data":[]}'
)
_OPENBLAS: Final = INSTALLED / "openblas"


class Contestant(ABC):
    """A server that answers on an address between `start` and `kill`."""

    name: str
    version: str
    dialect = Dialect.ANTHROPIC
    # What mlx_lm.server calls the model that it was started with.
    model_name = "default_model"

    @abstractmethod
    def start(self) -> None:
        """Returns when it answers."""

    @abstractmethod
    def kill(self) -> None:
        """Sends SIGKILL to every process."""

    @property
    @abstractmethod
    def base_url(self) -> str: ...

    @abstractmethod
    def process(self) -> psutil.Process:
        """The process that started all others."""

    def round_trip(self) -> bool:
        """Switches to another mode and back; False if there are no modes."""
        return False

    def close(self) -> None:
        self.kill()

    def endpoint(self) -> Endpoint:
        return Endpoint(self.base_url, "", self.model_name, self.dialect, READ_SECONDS)

    def cpu_seconds(self) -> float:
        """Processor time of all processes so far."""
        times = [process.cpu_times() for process in self._tree()]
        return sum(one.user + one.system for one in times)

    def resident_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        return [self.process(), *self.process().children(recursive=True)]


class Own(Contestant):
    """The whole service. No drafts: a model with random weights repeats itself, and would gain."""

    name = "anyclaude"

    def __init__(self, model: Path) -> None:
        self.version = metadata.version("anyclaude")
        self._model = model
        self._home = Path(tempfile.mkdtemp(prefix="acr-", dir="/tmp"))
        self._service: Service | None = None
        # The server of the other mode, which is switched to and never asked.
        self._other = ScriptedUpstream(lambda _: [_NO_MODELS]).__enter__()

    def start(self) -> None:
        environ: dict[str, Any] = {
            "ANYCLAUDE__MLX__DRAFT_TOKENS": "0",
            "ANYCLAUDE__LOG__LEVEL": "warning",
            "LMSTUDIO_URL": self._other.base_url,
            **blas_environment(),
        }
        self._service = Service(model=self._model, home=self._home, **environ)
        self._service.ready()

    def kill(self) -> None:
        if self._service is not None:
            for process in reversed(self._tree()):
                process.kill()
            self._service.__exit__()
            self._service = None

    def close(self) -> None:
        self.kill()
        self._other.close()
        shutil.rmtree(self._home)

    @property
    def base_url(self) -> str:
        return self._running().base_url

    def process(self) -> psutil.Process:
        return psutil.Process(self._running().process.pid)

    def round_trip(self) -> bool:
        for mode in ("lmstudio", "mlx-lm"):
            self._control("mode", mode)
        return True

    def forget(self) -> None:
        """Removes every cache."""
        self._control("cache", "prune", "--all", "--yes")

    def _control(self, *arguments: str) -> None:
        done = self._running().control(*arguments)
        if done.code:
            raise RuntimeError(done.stderr)

    def _running(self) -> Service:
        if self._service is None:
            raise RuntimeError("the service does not run")
        return self._service


class Rival(Contestant):
    """Another server; `make` prepares it without starting it."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Server],
        dialect: Dialect = Dialect.ANTHROPIC,
        model_name: str = Contestant.model_name,
    ) -> None:
        self.name, self.dialect, self.model_name = name, dialect, model_name
        self._server = make()
        self._runs = False
        self.version = self._server.version

    def start(self) -> None:
        self._server.__enter__()
        self._runs = True

    def kill(self) -> None:
        if self._runs:
            self._server.__exit__()
            self._runs = False

    @property
    def base_url(self) -> str:
        return self._server.base_url

    def process(self) -> psutil.Process:
        return psutil.Process(self._server.pid)


def contestants(model: Path, gguf: Path) -> dict[str, Callable[[], Contestant]]:
    """How to make each server for the model; making or starting one may fail."""

    def llama() -> Server:
        return LlamaCpp(gguf, model=model, slots=STREAMS, more=("--threads", "1"))

    def vllm() -> Server:
        return VllmMlx(model, "--continuous-batching")

    return {
        "anyclaude": lambda: Own(model),
        "mlx_lm.server": lambda: Rival("mlx_lm.server", lambda: MlxLm(model), Dialect.OPENAI),
        "vllm-mlx": lambda: Rival("vllm-mlx", vllm, model_name=SERVED_MODEL),
        "llama-server": lambda: Rival("llama-server", llama),
    }


def blas_environment() -> dict[str, str]:
    """The variables that let MLX use OpenBLAS, with one thread; empty where it is not installed."""
    if not _OPENBLAS.exists():
        return {}
    return {
        "LD_PRELOAD": str(_OPENBLAS / "libopenblas.so"),
        "LD_LIBRARY_PATH": f"{_OPENBLAS}{os.pathsep}{_mlx_libraries()}",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _mlx_libraries() -> Path:
    """Where MLX's wheel has the run-time library of Fortran, which OpenBLAS needs."""
    return Path(str(metadata.distribution("mlx-cpu").locate_file("mlx_cpu.libs")))


def load_average() -> float:
    return os.getloadavg()[0]


def settle(seconds: float = 2.0) -> None:
    """A pause as between a user's turns, in which a server may write its caches to disk."""
    time.sleep(seconds)
