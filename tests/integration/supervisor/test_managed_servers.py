"""Servers that the service runs itself, shown with a real mlx_lm.server."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.mlx.demo import MODEL_PATH
from tests.integration.conversation import body, instructions
from tests.integration.mlx_server import free_port
from tests.integration.service import Service, wait_ended, worker_of
from tests.models.requests import BASH, assistant, user

_STOPPED = control_pb2.WORKER_STATE_STOPPED
_END_SECONDS = 30


def _server(port: int) -> list[str]:
    """A server whose process is not the command itself, as with a launcher of several ranks."""
    serve = [sys.executable, "-m", "mlx_lm", "server", "--model", str(MODEL_PATH)]
    return ["sh", "-c", '"$@"; exit 3', "sh", *serve, "--host", "127.0.0.1", "--port", str(port)]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The service with one server that it can run and one that it cannot."""
    port = free_port()
    home = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-"))
    (home / "config.toml").write_text(
        f"""
        [upstreams.own]
        command = {json.dumps(_server(port))}
        base_url = "http://127.0.0.1:{port}"
        model = "default_model"

        [upstreams.missing]
        command = ["/nowhere/server"]
        base_url = "http://127.0.0.1:9"
        """
    )
    with Service(home=home) as running:
        yield running.ready()
        processes = running.children() + _descendants(running)
        assert running.stop() == 0
        assert wait_ended(processes, _END_SECONDS) == []
    shutil.rmtree(home)


def _descendants(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children(recursive=True)


def _servers(service: Service) -> list[psutil.Process]:
    """The process that serves, not the shell that started it."""
    return [p for p in _descendants(service) if p.cmdline()[1:3] == ["-m", "mlx_lm"]]


def _ask(service: Service, mode: str, *messages: Any, **fields: Any) -> Any:
    asked = body(messages=list(messages), max_tokens=200, temperature=0, **fields)
    with service.http() as client:
        answer = client.post("/v1/messages", json=asked, headers={"x-anyclaude-mode": mode})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _tool_loop(service: Service) -> str:
    first = user("Run something.")
    call = _ask(service, "own", first, tools=[BASH], system="")
    (use,) = [block for block in call["content"] if block["type"] == "tool_use"]
    done = {"type": "tool_result", "tool_use_id": use["id"], "content": "hello"}
    answer = _ask(service, "own", first, assistant(*call["content"]), user(done), tools=[BASH])
    return str(answer["content"][0]["text"])


def test_a_server_lives_as_long_as_its_mode(service: Service) -> None:
    """It starts with its mode, answers, is restarted when killed, and stops with the next mode."""
    stable = {"system": instructions("kept over the switch")}
    _ask(service, "mlx-lm", user("Hello."), **stable)
    assert worker_of(service.status(), "own").state == _STOPPED
    assert not _servers(service)

    switched = service.control("mode", "own")
    assert switched.code == 0, switched.stderr
    assert _tool_loop(service).startswith("The tool call came back")

    first = worker_of(service.status(), "own")
    for process in _servers(service):
        process.kill()
    service.poll(lambda status: worker_of(status, "own").generation > first.generation)
    service.wait_worker(control_pb2.WORKER_STATE_READY, "own")
    service.ready()
    assert _tool_loop(service).startswith("The tool call came back")
    assert "ended with code 3" in worker_of(service.status(), "own").last_exit.reason

    processes = _servers(service)
    assert processes
    assert service.control("mode", "mlx-lm").code == 0
    assert wait_ended(processes, _END_SECONDS) == []
    assert worker_of(service.status(), "own").state == _STOPPED
    again = _ask(service, "mlx-lm", user("Hello."), **stable)
    assert read_tokens_of(again) > 0.9 * prompt_tokens_of(again)


def read_tokens_of(answer: Any) -> int:
    return int(answer["usage"]["cache_read_input_tokens"])


def prompt_tokens_of(answer: Any) -> int:
    usage = answer["usage"]
    return sum(
        int(usage[key])
        for key in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )


def test_a_server_that_cannot_start_leaves_the_mode(service: Service) -> None:
    """The command of the switch says why, and what was the mode stays it."""
    refused = service.control("mode", "missing")
    assert refused.code != 0
    assert "upstreams.missing.command cannot be started" in refused.stderr
    assert service.status().mode == "mlx-lm"
    assert worker_of(service.status(), "missing").state == _STOPPED
