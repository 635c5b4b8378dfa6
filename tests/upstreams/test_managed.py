"""Servers that the service runs itself: a model on two ranks, and llama.cpp's server."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import pytest

from anyclaude.mlx.demo import MODEL_PATH
from tests.integration.managed_server import check_life, service_with
from tests.integration.mlx_server import free_port
from tests.models.saved import with_two_heads
from tests.upstreams.servers import LlamaCpp

_KILLS: Final = 3
_SCRIPTS: Final = Path(sys.executable).parent


def _two_ranks(folder: Path) -> tuple[list[str], int]:
    """MLX's own launcher with two ranks of this machine in a ring, and the port of the first."""
    port = free_port()
    launch = [str(_SCRIPTS / "mlx.launch"), "--backend", "ring", "-n", "2"]
    ring = ["--starting-port", str(free_port()), "--"]
    model = with_two_heads(MODEL_PATH, folder / "model")
    serve = [str(_SCRIPTS / "mlx_lm.server"), "--model", str(model), "--port", str(port)]
    return [*launch, *ring, *serve, "--host", "127.0.0.1"], port


def _llama_cpp(folder: Path) -> tuple[list[str], int]:
    server = LlamaCpp(folder / "demo.gguf")
    return server.command, server.port


@pytest.mark.parametrize(
    ("make", "program"),
    [(_two_ranks, "mlx_lm.server"), (_llama_cpp, "llama-server")],
    ids=["two ranks of mlx_lm.server", "llama-server"],
)
def test_a_managed_server(
    make: Callable[[Path], tuple[list[str], int]],
    program: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """A mode starts it, a process killed at random leads to a restart, and a switch ends it."""
    (command, port), pick = make(tmp_path), random.Random(1)

    def serves(process: psutil.Process) -> bool:
        return any(Path(part).name == program for part in process.cmdline()[:2])

    def any_one(processes: list[psutil.Process]) -> list[psutil.Process]:
        return [pick.choice(processes)]

    with service_with(command, port) as service:
        check_life(service, serves, [any_one] * _KILLS)
    record_property("kills", _KILLS)
