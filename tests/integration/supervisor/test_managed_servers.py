"""Servers that the service runs itself, shown with a real mlx_lm.server."""

import sys
from collections.abc import Iterator

import psutil
import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.mlx.demo import MODEL_PATH
from tests.integration.managed_server import check_life, service_with
from tests.integration.mlx_server import free_port
from tests.integration.service import Service, worker_of


def _server(port: int) -> list[str]:
    """A server whose process is not the command itself, as with a launcher of several ranks."""
    serve = [sys.executable, "-m", "mlx_lm", "server", "--model", str(MODEL_PATH)]
    return ["sh", "-c", '"$@"; exit 3', "sh", *serve, "--host", "127.0.0.1", "--port", str(port)]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The service with one server that it can run and one that it cannot."""
    port = free_port()
    missing = """
        [upstreams.missing]
        command = ["/nowhere/server"]
        base_url = "http://127.0.0.1:9"
        """
    with service_with(_server(port), port, missing) as running:
        yield running


def _serves(process: psutil.Process) -> bool:
    """Whether it is the process that serves, not the shell that started it."""
    return process.cmdline()[1:3] == ["-m", "mlx_lm"]


def test_a_server_lives_as_long_as_its_mode(service: Service) -> None:
    """It starts with its mode, answers, is restarted when killed, and stops with the next mode."""
    check_life(service, _serves, [list])


def test_a_server_that_cannot_start_leaves_the_mode(service: Service) -> None:
    """The command of the switch says why, and what was the mode stays it."""
    refused = service.control("mode", "missing")
    assert refused.code != 0
    assert "upstreams.missing.command cannot be started" in refused.stderr
    assert service.status().mode == "mlx-lm"
    assert worker_of(service.status(), "missing").state == control_pb2.WORKER_STATE_STOPPED
