"""What clients see when processes of a real service are killed."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from anyclaude.control.v1 import control_pb2
from tests.integration.conversation import body
from tests.integration.frontend_process import wait_until
from tests.integration.scripted_upstream import (
    HELLO,
    STREAM,
    Hang,
    ScriptedUpstream,
    openai_server,
)
from tests.integration.service import WAIT_SECONDS, Service, wait_ended
from tests.models import saved
from tests.models.requests import user

# More than a minute of the tiny model's talk.
_ENDLESS_TOKENS: Final = 30_000
# Some seconds of it.
_LONG_TOKENS: Final = 500
# For orphans to end; the kernel kills them, but a busy machine may run them late.
_GONE_SECONDS: Final = 10.0
_CHAT: Final = "/v1/chat/completions"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that talks until it is stopped."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return saved.save(folder, template="qwen3", endless=True)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """The server of mode lmstudio; each test sets what it answers."""
    with ScriptedUpstream(openai_server(lambda _: HELLO)) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def service(model: Path, upstream: ScriptedUpstream) -> Iterator[Service]:
    """One service for the tests; each test ends once it is ready again."""
    environ = {"LMSTUDIO_URL": upstream.base_url, "ANYCLAUDE__MLX__STOP_GRACE_SECONDS": "0.1"}
    with Service(model=model, **environ) as service:
        yield service.ready()


class Stream:
    """A running stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        self._begin: dict[str, Any] = {}

    def until_it_talks(self) -> None:
        self._begin = next(e for e in self.events() if e["type"] == "content_block_delta")

    def whole_text(self) -> str:
        """The text of the message, from its beginning to its end."""
        events = [self._begin, *self.events()]
        assert events[-1]["type"] == "message_stop", events[-1]
        kinds = ["content_block_delta", "content_block_stop", "message_delta", "message_stop"]
        met = dict.fromkeys(event["type"] for event in events if event["type"] != "ping")
        assert list(met) == kinds
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        return "".join(delta["text"] for delta in deltas)

    def events(self) -> Iterator[dict[str, Any]]:
        """The remaining events, to the end of the connection."""
        for line in self._lines:
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


@contextmanager
def talking(
    service: Service, max_tokens: int = _ENDLESS_TOKENS, words: str = "Talk."
) -> Iterator[Stream]:
    """A response whose first text has arrived."""
    request = body(user(words), max_tokens=max_tokens, temperature=0, stream=True)
    with service.http() as http, http.stream("POST", "/v1/messages", json=request) as response:
        stream = Stream(response)
        stream.until_it_talks()
        yield stream


def test_a_stream_goes_on_at_the_next_worker(service: Service) -> None:
    """The client of a killed worker sees one unbroken stream: the undisturbed answer."""
    before = service.worker()
    request = body(user("Talk at length."), max_tokens=_LONG_TOKENS, temperature=0)
    with service.http() as http:
        undisturbed = http.post("/v1/messages", json=request).json()
    with talking(service, _LONG_TOKENS, "Talk at length.") as stream:
        os.kill(before.pid, signal.SIGKILL)
        text = stream.whole_text()

    assert text == undisturbed["content"][0]["text"]
    after = wait_for_next(service, before)
    assert after.last_exit.signal == "SIGKILL"
    assert after.restart_count == before.restart_count + 1
    record = service.control("requests", "--count", "1", "--json").json["requests"][0]
    assert record["worker_deaths"] == 1
    assert record["replayed_tokens"] > 0
    assert record["usage"]["output_tokens"] == _LONG_TOKENS


def test_a_stream_goes_on_after_a_planned_restart(service: Service) -> None:
    """`worker restart` moves a running answer to the next worker, after the time to finish."""
    before = service.worker()
    request = body(user("Talk at length."), max_tokens=_LONG_TOKENS, temperature=0)
    with service.http() as http:
        undisturbed = http.post("/v1/messages", json=request).json()
    with talking(service, _LONG_TOKENS, "Talk at length.") as stream:
        assert service.control("worker", "restart", "mlx").code == 0
        text = stream.whole_text()

    assert text == undisturbed["content"][0]["text"]
    assert len(wait_for_next(service, before).deaths) == len(before.deaths)
    record = service.control("requests", "--count", "1", "--json").json["requests"][0]
    assert record["worker_deaths"] == 0
    assert record["replayed_tokens"] > 0


def test_a_whole_answer_survives_its_worker(service: Service) -> None:
    """Without streaming nothing was sent yet, so the next worker gives the answer of the first."""
    daemon, before = service.wait_ready().pid, service.worker()
    request = body(user("Talk at length."), max_tokens=_LONG_TOKENS, temperature=0)
    with service.http() as http, ThreadPoolExecutor(1) as pool:
        undisturbed = http.post("/v1/messages", json=request).json()
        answer = pool.submit(http.post, "/v1/messages", json=request)
        wait_running(service)
        os.kill(before.pid, signal.SIGKILL)
        survived = answer.result(WAIT_SECONDS)

    assert survived.status_code == 200
    assert survived.json()["content"] == undisturbed["content"]
    assert survived.json()["usage"]["output_tokens"] == _LONG_TOKENS
    wait_for_next(service, before)
    assert service.status().pid == daemon


def test_a_stream_survives_its_worker_during_prefill(service: Service) -> None:
    """A stream without content goes on at the next worker: one message_start, a whole answer."""
    request = body(user("the quick brown fox " * 800), stream=True)
    before = service.worker()
    with service.http() as http, http.stream("POST", "/v1/messages", json=request) as response:
        stream = Stream(response)
        assert next(stream.events())["type"] == "message_start"
        os.kill(before.pid, signal.SIGKILL)
        kinds = [event["type"] for event in stream.events() if event["type"] != "ping"]
    assert kinds[0] == "content_block_start"
    assert kinds[-1] == "message_stop"
    assert "message_start" not in kinds
    wait_for_next(service, before)


@pytest.mark.parametrize("stream", [True, False])
def test_a_relayed_request_survives_before_its_first_byte(
    service: Service, upstream: ScriptedUpstream, stream: bool
) -> None:
    """A request at a silent server goes on at the next relay, which asks that server again."""
    silent = openai_server(lambda _: [STREAM, Hang()])
    upstream.script, before = silent, service.worker("relay")
    asked = len(upstream.posts(_CHAT))
    request = body(user("Hi"), stream=stream)
    headers = {"x-anyclaude-mode": "lmstudio"}
    with service.http() as http, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(http.post, "/v1/messages", json=request, headers=headers)
        wait_until(lambda: len(upstream.posts(_CHAT)) > asked, WAIT_SECONDS)
        upstream.script = openai_server(lambda _: HELLO)
        os.kill(before.pid, signal.SIGKILL)
        survived = answer.result(WAIT_SECONDS)

    assert survived.status_code == 200
    if stream:
        assert survived.text.count("event: message_start") == 1
        assert "event: message_stop" in survived.text
        assert "event: error" not in survived.text
    else:
        assert survived.json()["content"] == [{"type": "text", "text": "Hello"}]
        assert survived.headers["x-anyclaude-worker-deaths"] == "1"
    wait_for_next(service, before)


def test_a_killed_front_end_refuses_no_connection(service: Service) -> None:
    """Connections during its restart are served; the worker and its caches stay."""
    before = service.wait_ready()
    pids = {worker.name: worker.pid for worker in before.workers}
    with talking(service) as stream:
        os.kill(pids["frontend"], signal.SIGKILL)
        answer = answered(service)
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream.events())
    assert answer["usage"]["output_tokens"] == 4
    after = {worker.name: worker for worker in service.status().workers}
    assert after["frontend"].pid != pids["frontend"]
    assert after["mlx"].pid == pids["mlx"]
    wait_running(service, 0)


def test_no_child_outlives_a_killed_daemon(model: Path) -> None:
    """Soon after the daemon's SIGKILL no child runs, and the next daemon works."""
    with Service(model=model) as first:
        with talking(first.ready()) as stream:
            children = first.children()
            # The front end may also have one, which keeps the machine awake.
            assert {child.pid for child in children} >= {w.pid for w in first.status().workers}
            first.process.kill()
            assert wait_ended(children, _GONE_SECONDS) == []
            with pytest.raises(httpx.RemoteProtocolError):
                list(stream.events())
        first.process.wait()
        with Service(model=model, home=first.home) as second:
            assert answered(second.ready())
            assert second.stop() == 0
            assert second.sockets() == []


def test_sigterm_ends_every_answer_and_leaves_nothing(model: Path) -> None:
    """Responses finish in time or end in an error; exit 0, no socket."""
    with Service(model=model, ANYCLAUDE__SERVER__DRAIN_TIMEOUT_SECONDS="3") as service:
        with (
            talking(service.ready(), words="Talk for ever.") as endless,
            talking(service, max_tokens=60, words="Talk a little.") as short,
        ):
            children = service.children()
            service.process.send_signal(signal.SIGTERM)
            finished = [event["type"] for event in short.events()]
            cut = [event["type"] for event in endless.events()]
        assert service.process.wait(WAIT_SECONDS) == 0
        assert finished[-2:] == ["message_delta", "message_stop"]
        assert cut[-1] == "error"
        assert "message_stop" not in cut
        assert service.sockets() == []
        assert wait_ended(children, 0) == []


def answered(service: Service) -> dict[str, Any]:
    """Sends a short request, which must be answered."""
    with service.http() as http:
        response = http.post("/v1/messages", json=body(user("And now?"), max_tokens=4))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def wait_for_next(service: Service, before: control_pb2.Worker) -> control_pb2.Worker:
    """Waits for the process that replaces the one `before`."""
    return service.wait_worker(control_pb2.WORKER_STATE_READY, before.name, before.generation + 1)


def wait_running(service: Service, count: int = 1) -> None:
    """Waits until so many requests run."""
    service.poll(lambda status: status.running_requests == count)
