"""The life of a server that the service runs, from the switch to its mode until the switch back."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from anyclaude.control.v1 import control_pb2
from tests.integration.conversation import body, instructions
from tests.integration.service import Service, wait_ended, worker_of
from tests.models.requests import BASH, assistant, user

MODE: Final = "own"
_END_SECONDS: Final = 60
_STOPPED: Final = control_pb2.WORKER_STATE_STOPPED


@contextmanager
def service_with(command: Sequence[str], port: int, more: str = "") -> Iterator[Service]:
    """The service, whose mode `own` runs a command that serves at `port`; `more` settings.

    Raises:
        AssertionError: a process is left when the service has ended.
    """
    home = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-"))
    (home / "config.toml").write_text(
        f"""
        [upstreams.{MODE}]
        command = {json.dumps(list(command))}
        base_url = "http://127.0.0.1:{port}"
        model = "default_model"
        {more}
        """
    )
    with Service(home=home) as running:
        yield running.ready()
        processes = running.children() + descendants(running)
        assert running.stop() == 0
        assert wait_ended(processes, _END_SECONDS) == []
        assert "exception was never retrieved" not in running.output
    shutil.rmtree(home)


def descendants(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children(recursive=True)


def check_life(
    service: Service,
    serving: Callable[[psutil.Process], bool],
    kills: Sequence[Callable[[list[psutil.Process]], Sequence[psutil.Process]]],
) -> None:
    """It starts with its mode, answers, is restarted when killed, and stops with the next mode.

    Args:
        serving: whether a process is one of those that serve.
        kills: for each kill, which of the serving processes it ends.
    """
    stable = {"system": instructions("kept over the switch")}
    _ask(service, "mlx-lm", user("Hello."), **stable)
    assert worker_of(service.status(), MODE).state == _STOPPED
    assert not _servers(service, serving)

    switched = service.control("mode", MODE)
    assert switched.code == 0, switched.stderr
    _check_tool_loop(service)

    for choose in kills:
        before = worker_of(service.status(), MODE).generation
        for process in choose(_servers(service, serving)):
            process.kill()
        _wait_restarted(service, before)
        _check_tool_loop(service)

    processes = _servers(service, serving)
    assert processes
    assert service.control("mode", "mlx-lm").code == 0
    assert wait_ended(processes, _END_SECONDS) == []
    assert worker_of(service.status(), MODE).state == _STOPPED
    usage = _ask(service, "mlx-lm", user("Hello."), **stable)["usage"]
    read = usage["cache_read_input_tokens"]
    assert read > 0.9 * (read + usage["input_tokens"] + usage["cache_creation_input_tokens"])


def _servers(service: Service, serving: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in descendants(service):
        # It may have ended since.
        with suppress(psutil.NoSuchProcess):
            if serving(process):
                found.append(process)
    return found


def _wait_restarted(service: Service, generation: int) -> None:
    service.poll(lambda status: worker_of(status, MODE).generation > generation)
    service.wait_worker(control_pb2.WORKER_STATE_READY, MODE)
    service.ready()
    # The status says how it ended.
    assert "ended" in worker_of(service.status(), MODE).last_exit.reason


def _ask(service: Service, mode: str, *messages: Any, **fields: Any) -> Any:
    asked = body(messages=list(messages), max_tokens=200, temperature=0, **fields)
    with service.http() as client:
        answer = client.post("/v1/messages", json=asked, headers={"x-anyclaude-mode": mode})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _check_tool_loop(service: Service) -> None:
    first = user("Run something.")
    call = _ask(service, MODE, first, tools=[BASH], system="")
    (use,) = [block for block in call["content"] if block["type"] == "tool_use"]
    done = {"type": "tool_result", "tool_use_id": use["id"], "content": "hello"}
    answer = _ask(service, MODE, first, assistant(*call["content"]), user(done), tools=[BASH])
    assert str(answer["content"][0]["text"]).startswith("The tool call came back")
