"""Streams under stress: silence, faults, clients that leave or stall."""

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.integration.frontend_process import FrontendProcess, route, wait_until
from tests.integration.scripted_worker import ScriptedWorker

PATIENCE_SECONDS = 60


class Gate:
    """Makes a script wait for its test."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        self._event.set()

    def wait(self) -> None:
        assert self._event.wait(PATIENCE_SECONDS)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    # No script outlives its test.
    made.open()


def events_of(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def until(events: Iterator[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The events up to and including the first of `kind`."""
    seen = []
    for event in events:
        seen.append(event)
        if event["type"] == kind:
            return seen
    raise AssertionError(f"no {kind} in {seen}")


@contextmanager
def streaming(http: httpx.Client, body: dict[str, Any]) -> Iterator[httpx.Response]:
    with http.stream("POST", "/v1/messages", json={**body, "stream": True}) as answer:
        yield answer


def test_pings_before_the_worker_accepts(
    http: httpx.Client, scripted: ScriptedWorker, body: dict[str, Any], gate: Gate
) -> None:
    """If the worker sends nothing, the status waits a moment, and then pings are sent."""

    def silent(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        gate.wait()
        yield from say.text_answer("late")

    scripted.script = silent
    begun = time.monotonic()
    with streaming(http, body) as answer:
        assert answer.status_code == 200
        assert time.monotonic() - begun >= 0.3
        assert "x-anyclaude-cache-read" not in answer.headers
        events = events_of(answer)
        assert [next(events)["type"] for _ in range(3)] == ["ping"] * 3
        gate.open()
        rest = [event["type"] for event in events if event["type"] != "ping"]
        assert (rest[0], rest[-1]) == ("message_start", "message_stop")


def test_pings_by_the_wall_clock_while_decoding(
    http: httpx.Client, scripted: ScriptedWorker, body: dict[str, Any], gate: Gate
) -> None:
    """Pings are sent during silence inside a block, and progress events count as silence."""

    def slow(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        yield say.started()
        yield say.text_start()
        yield say.delta(text="a")
        for _i in range(40):
            yield say.progress()
            time.sleep(0.05)
        gate.wait()
        yield say.stop()
        yield say.finished()

    scripted.script = slow
    # From before anything is sent: however late this test reads, no three intervals fit in less.
    begun = time.monotonic()
    with streaming(http, body) as answer:
        events = events_of(answer)
        until(events, "content_block_delta")
        assert [next(events)["type"] for _ in range(3)] == ["ping"] * 3
        assert 0.55 < time.monotonic() - begun < 30
        gate.open()
        assert until(events, "message_stop")


def test_worker_failure_mid_stream(
    http: httpx.Client, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """A failure after the start is an error event, and nothing follows it."""
    scripted.script = lambda _: iter([say.started(), say.failed(500, "out of memory")])
    with streaming(http, body) as answer:
        events = list(events_of(answer))
    assert [event["type"] for event in events] == ["message_start", "error"]
    assert events[-1]["error"] == {"type": "api_error", "message": "out of memory"}
    assert events[-1]["request_id"] == answer.headers["request-id"]


def test_official_client_sees_the_failure(
    client: anthropic.Anthropic, scripted: ScriptedWorker
) -> None:
    """The SDK raises on the error event."""
    scripted.script = lambda _: iter([say.started(), say.failed(529, "gone")])
    messages: list[Any] = [{"role": "user", "content": "x"}]
    with (
        pytest.raises(anthropic.APIStatusError, match="gone"),
        client.messages.stream(model="m", max_tokens=5, messages=messages) as stream,
    ):
        stream.get_final_message()


@pytest.mark.parametrize(
    "script",
    [
        [say.started(), say.text_start(), say.delta(text="x")],
        [say.started(), say.delta(text="x")],
        [say.started(), say.tool_start(), say.delta(partial_json="{"), say.stop(), say.finished()],
    ],
    ids=["ends early", "delta without a block", "broken tool input"],
)
def test_broken_answers_end_as_errors(
    http: httpx.Client,
    scripted: ScriptedWorker,
    body: dict[str, Any],
    script: list[worker.GenerateResponse],
) -> None:
    """A response that breaks off or violates the grammar never looks complete."""
    scripted.script = lambda _: iter(script)
    with streaming(http, body) as answer:
        events = list(events_of(answer))
    assert events[-1]["type"] == "error"
    assert "message_delta" not in [event["type"] for event in events]
    whole = http.post("/v1/messages", json=body)
    assert (whole.status_code, whole.json()["error"]["type"]) == (500, "api_error")


@contextmanager
def dying_worker(events_before_death: int) -> Iterator[Path]:
    """A worker process that kills itself with SIGKILL after that many events."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ac-d-") as folder:
        path = Path(folder) / "w.sock"
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.integration.scripted_worker",
                str(path),
                str(events_before_death),
            ],
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield path
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()  # type: ignore[union-attr]


def test_worker_killed_mid_stream(
    front: FrontendProcess, http: httpx.Client, body: dict[str, Any]
) -> None:
    """A SIGKILL to the worker ends the stream in an error event, soon, and never as complete."""
    with dying_worker(3) as path:
        front.push(route(path))
        with streaming(http, body) as answer:
            events = [event for event in events_of(answer) if event["type"] != "ping"]
    kinds = [event["type"] for event in events]
    assert kinds == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert events[-1]["error"]["type"] == "overloaded_error"


def test_worker_killed_before_the_start(body: dict[str, Any]) -> None:
    """A worker killed before its first event gives a 529 to retry, streaming or not."""
    for stream in (True, False):
        with (
            dying_worker(0) as path,
            FrontendProcess(accept_wait_seconds=20, worker_restart_wait_seconds=0) as front,
            httpx.Client(base_url=front.base_url, timeout=30) as http,
        ):
            front.push(route(path, retry_after_seconds=4))
            answer = http.post("/v1/messages", json={**body, "stream": stream})
            assert (answer.status_code, answer.headers["retry-after"]) == (529, "4")


def test_no_worker_behind_the_route(
    front: FrontendProcess, http: httpx.Client, body: dict[str, Any]
) -> None:
    """A route whose worker is gone gives a 529 at once."""
    front.push(route("/tmp/nothing-here.sock"))
    answer = http.post("/v1/messages", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (529, "2")
    counted = http.post("/v1/messages/count_tokens", json=body)
    assert counted.status_code == 529


class Blocking:
    """A script that begins a response and then waits for its call's end."""

    def __init__(self, scripted: ScriptedWorker, gate: Gate, *events: Any) -> None:
        self._gate = gate
        self._events = events
        scripted.script = self._say

    def _say(self, _: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        yield from self._events
        self._gate.wait()


@contextmanager
def raw_request(front: FrontendProcess, body: dict[str, Any]) -> Iterator[socket.socket]:
    content = json.dumps(body).encode()
    with socket.create_connection(front.listener.getsockname()) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + content)
        yield connection


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("events", [(), (say.started(), say.text_start(), say.delta(text="x"))])
def test_client_that_leaves_cancels_the_work(
    front: FrontendProcess,
    scripted: ScriptedWorker,
    body: dict[str, Any],
    gate: Gate,
    stream: bool,
    events: tuple[worker.GenerateResponse, ...],
) -> None:
    """If the client leaves, queued or during the response, the call is cancelled at once."""
    Blocking(scripted, gate, *events)
    with raw_request(front, {**body, "stream": stream}):
        assert scripted.called.wait(PATIENCE_SECONDS)
    begun = time.monotonic()
    assert scripted.over.wait(PATIENCE_SECONDS)
    assert time.monotonic() - begun < 10


def test_client_that_leaves_before_its_route_is_ready(
    front: FrontendProcess, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """A client that leaves before its route is ready causes no call to the worker."""
    with FrontendProcess(accept_wait_seconds=30) as patient:
        patient.push(route(state=frontend.ROUTE_STATE_STARTING))
        with raw_request(patient, body):
            pass
        assert patient.next_record().outcome == frontend.OUTCOME_CANCELLED
        patient.push(route(scripted.socket_path))
        assert not scripted.requests


def test_client_that_stalls_is_dropped(scripted: ScriptedWorker, body: dict[str, Any]) -> None:
    """A client that stops reading slows the worker down, and is disconnected later."""
    piece_bytes = 64 * 1024
    said = 0

    def endless(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        nonlocal said
        yield say.started()
        yield say.text_start()
        while True:
            said += 1
            yield say.delta(text="x" * piece_bytes)

    scripted.script = endless
    with FrontendProcess(client_stall_seconds=2) as front:
        front.push(route(scripted.socket_path))
        with raw_request(front, {**body, "stream": True}) as connection:
            assert connection.recv(1)
            assert scripted.over.wait(PATIENCE_SECONDS)
        # The kernel's buffers for a connection are the larger part of this.
        assert said * piece_bytes < 32 * 1024 * 1024
        record = front.next_record()
        assert record.outcome == frontend.OUTCOME_CANCELLED
        wait_until(lambda: front.log_lines("client dropped"))


def test_unfinished_body(scripted: ScriptedWorker) -> None:
    """A body that stops arriving is refused, which frees its slot."""
    with FrontendProcess(client_stall_seconds=1.5) as front:
        front.push(route(scripted.socket_path))
        with socket.create_connection(front.listener.getsockname()) as connection:
            connection.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"
            )
            connection.settimeout(PATIENCE_SECONDS)
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "begun", [b"", b"POST /v1/messages HT", b"GET / HTTP/1.1\r\nhost: localho"]
)
def test_an_incomplete_head_is_refused_in_time(scripted: ScriptedWorker, begun: bytes) -> None:
    """A connection that sends no complete request is closed with an error."""
    with FrontendProcess(client_stall_seconds=1.5) as front:
        front.push(route(scripted.socket_path))
        with socket.create_connection(front.listener.getsockname()) as connection:
            connection.sendall(begun)
            connection.settimeout(PATIENCE_SECONDS)
            answer = connection.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 408") == bool(begun)
            assert (b'"timeout_error"' in answer) == bool(begun)


def test_a_connection_kept_alive_is_not_refused(scripted: ScriptedWorker) -> None:
    """Between two requests a client may wait longer than within one."""
    with FrontendProcess(client_stall_seconds=1) as front, httpx.Client() as client:
        front.push(route(scripted.socket_path))
        for _ in range(2):
            assert client.get(f"{front.base_url}/health/live").status_code == 200
            time.sleep(1.5)


def test_requests_run_side_by_side(
    http: httpx.Client, scripted: ScriptedWorker, body: dict[str, Any], gate: Gate
) -> None:
    """A waiting request does not delay another."""
    Blocking(scripted, gate, say.started())
    with streaming(http, body):
        scripted.script = lambda _: say.text_answer("quick")
        assert http.post("/v1/messages", json=body).status_code == 200
