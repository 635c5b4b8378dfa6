"""The front end among its processes: routes change, it restarts, stops and reports."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from anyclaude.control.v1 import control_pb2 as control
from anyclaude.control.v1.control_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.runtime.channels import target
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.integration.frontend_process import FrontendProcess, listen, post, route, wait_until
from tests.integration.scripted_worker import ScriptedWorker

STARTING = frontend.ROUTE_STATE_STARTING
PATIENCE_SECONDS = 60


def test_the_machine_stays_awake_during_a_request(
    body: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's program runs from the first request on, and ends with the front end."""
    log = tmp_path / "log"
    for name in ("systemd-inhibit", "caffeinate"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho awake >> {log}\ncat\necho asleep >> {log}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with FrontendProcess(accept_wait_seconds=0.2) as front:
        assert not log.exists()
        post(front, body)
        wait_until(lambda: log.exists() and log.read_text() == "awake\n")
        front.terminate()
        assert front.process.wait(PATIENCE_SECONDS) == 0
    wait_until(lambda: log.read_text() == "awake\nasleep\n")


def test_before_the_first_route(body: dict[str, Any]) -> None:
    """Before the first push a request waits a moment, and then gets 529."""
    with FrontendProcess(accept_wait_seconds=0.2) as front:
        begun = time.monotonic()
        answer = post(front, body)
        assert time.monotonic() - begun >= 0.2
        assert answer.status_code == 529
        assert int(answer.headers["retry-after"]) > 0


def test_a_running_request_is_listed_with_its_progress(body: dict[str, Any]) -> None:
    """How much of the prompt is computed is seen while the client waits; then it is gone."""
    go_on = threading.Event()

    def script(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        yield say.started()
        yield say.progress(7_400, 18_490)
        go_on.wait(PATIENCE_SECONDS)
        yield from list(say.text_answer("done"))[1:]

    with ScriptedWorker(script) as slow, FrontendProcess() as front, ThreadPoolExecutor(1) as pool:
        front.push(route(slow.socket_path))
        answer = pool.submit(post, front, body)
        wait_until(lambda: any(each.prompt_tokens for each in front.running()))
        (running,) = front.running()
        go_on.set()

        assert answer.result(PATIENCE_SECONDS).status_code == 200
        assert (running.prefilled_tokens, running.prompt_tokens) == (7_400, 18_490)
        assert running.record.mode == "mlx-lm"
        assert running.record.usage.cache_read_tokens == 90
        assert not running.record.HasField("time_to_first_token")
        wait_until(lambda: not front.running())


def test_request_waits_for_its_route(scripted: ScriptedWorker, body: dict[str, Any]) -> None:
    """A request that arrives while the worker starts is answered once it is ready."""
    with FrontendProcess(accept_wait_seconds=30) as front, ThreadPoolExecutor(1) as pool:
        front.push(route(state=STARTING, reason="loading"))
        answer = pool.submit(post, front, body)
        with pytest.raises(TimeoutError):
            answer.result(0.2)
        front.push(route(scripted.socket_path))
        assert answer.result(PATIENCE_SECONDS).status_code == 200


def test_routes_that_do_not_serve(front: FrontendProcess, body: dict[str, Any]) -> None:
    """A starting route is 529 with its reason; one that needs the user is final."""
    front.push(route(state=STARTING, reason="The model is loading.", retry_after_seconds=9))
    answer = post(front, body)
    assert (answer.status_code, answer.headers["retry-after"]) == (529, "9")
    assert answer.json()["error"]["message"] == "The model is loading."
    front.push(route(state=frontend.ROUTE_STATE_UNAVAILABLE, reason="Run `anyclaudectl doctor`."))
    answer = post(front, body)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
    assert answer.json()["error"]["message"] == "Run `anyclaudectl doctor`."


def test_running_requests_keep_their_route(
    front: FrontendProcess, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """A switch affects the next request; the running one ends on its worker."""
    gate = threading.Event()

    def slow(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        yield say.started()
        assert gate.wait(PATIENCE_SECONDS)
        yield say.text_start()
        yield say.delta(text="old")
        yield say.stop()
        yield say.finished()

    scripted.script = slow
    with (
        ScriptedWorker(lambda _: say.text_answer("new")) as successor,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(post, front, body)
        assert scripted.called.wait(PATIENCE_SECONDS)
        front.push(route(successor.socket_path, generation=2))
        assert post(front, body).json()["content"][0]["text"] == "new"
        gate.set()
        assert running.result(PATIENCE_SECONDS).json()["content"][0]["text"] == "old"


def test_record_and_log_line(scripted: ScriptedWorker, body: dict[str, Any]) -> None:
    """A request makes one record and one log line, with counts and times and without its prompt."""
    secret = "my-private-prompt"
    body["messages"][0]["content"] = secret
    with FrontendProcess() as front:
        front.push(route(scripted.socket_path))
        answer = post(
            front,
            {**body, "stream": True},
            **{"x-claude-code-session-id": "s1", "x-api-key": "k3y"},
        )
        record = front.next_record()
        assert record.request_id == answer.headers["request-id"]
        assert (record.status, record.stream, record.mode) == (200, True, "mlx-lm")
        assert record.outcome == frontend.OUTCOME_COMPLETED
        assert record.identity.session_id == "s1"
        assert record.usage.cache_read_tokens == 90
        assert record.stop_reason == worker.STOP_REASON_END_TURN
        assert 0 < record.time_to_first_token.ToNanoseconds() <= record.duration.ToNanoseconds()
        (line,) = front.log_lines("request")
        assert line["request_id"] == record.request_id
        assert line["cache_read_tokens"] == 90
        assert secret not in front.log_text()
        assert "k3y" not in front.log_text()


def test_refusals_are_recorded(body: dict[str, Any]) -> None:
    """The record of a refused request has the status and the type of its error."""
    with FrontendProcess() as front:
        post(front, {**body, "max_tokens": -1})
        record = front.next_record()
        assert (record.outcome, record.status) == (frontend.OUTCOME_FAILED, 400)
        assert record.error_type == "invalid_request_error"
        assert not record.HasField("time_to_first_token")


def test_restart_refuses_no_connection(body: dict[str, Any]) -> None:
    """Clients that send requests while the front end is replaced all get responses."""
    listener = listen()
    stop = threading.Event()

    def keep_asking() -> list[int]:
        statuses = []
        while not stop.is_set():
            statuses.append(post(front, body).status_code)
        return statuses

    with ScriptedWorker() as scripted, ThreadPoolExecutor(3) as pool:
        with FrontendProcess(listener.dup()) as front:
            front.push(route(scripted.socket_path))
            asking = [pool.submit(keep_asking) for _ in range(3)]
            wait_until(lambda: len(scripted.requests) > 20)
            front.terminate()
            assert front.process.wait(PATIENCE_SECONDS) == 0
        with FrontendProcess(listener) as second:
            second.push(route(scripted.socket_path))
            seen = len(scripted.requests)
            wait_until(lambda: len(scripted.requests) > seen + 20)
            stop.set()
            for future in asking:
                assert set(future.result(PATIENCE_SECONDS)) == {200}


def test_sigterm_lets_a_stream_finish(front_of_gate: "GatedFront", body: dict[str, Any]) -> None:
    """Stopping waits for the running stream and accepts no new connection."""
    front, gate = front_of_gate.process, front_of_gate.gate
    with httpx.stream(
        "POST", front.base_url + "/v1/messages", json={**body, "stream": True}, timeout=30
    ) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: message_start"
        front.terminate()
        wait_until(lambda: front.log_lines("front end stopping"))
        gate.set()
        assert "event: message_stop" in list(lines)
    assert front.process.wait(PATIENCE_SECONDS) == 0
    assert not front.birth.socket_path.exists()


class GatedFront:
    """A front end whose worker begins every response and waits for `gate` to end it."""

    def __init__(self, process: FrontendProcess, gate: threading.Event) -> None:
        self.process = process
        self.gate = gate


@pytest.fixture
def front_of_gate(scripted: ScriptedWorker, request: pytest.FixtureRequest) -> Iterator[GatedFront]:
    gate = threading.Event()

    def script(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        yield say.started()
        assert gate.wait(PATIENCE_SECONDS)
        yield say.finished()

    scripted.script = script
    with FrontendProcess(drain_timeout_seconds=getattr(request, "param", 20)) as process:
        process.push(route(scripted.socket_path))
        yield GatedFront(process, gate)
        gate.set()


@pytest.mark.parametrize("front_of_gate", [0.3], indirect=True)
def test_sigterm_ends_what_does_not_finish(
    front_of_gate: GatedFront, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """After the drain a stream ends in an error event, a whole response in a 529."""
    front = front_of_gate.process
    with ThreadPoolExecutor(2) as pool:
        streamed = pool.submit(post, front, {**body, "stream": True})
        whole = pool.submit(post, front, body)
        wait_until(lambda: len(scripted.requests) == 2)
        records = front.follow_records()
        front.terminate()
        assert front.process.wait(PATIENCE_SECONDS) == 0
        last = json.loads(streamed.result().text.strip().splitlines()[-1].removeprefix("data: "))
        assert last["error"]["type"] == "overloaded_error"
        assert whole.result().status_code == 529
        assert [r.record.outcome for r in records] == [frontend.OUTCOME_FAILED] * 2


def test_sigterm_when_idle(front_of_gate: GatedFront) -> None:
    """An idle front end with a kept-alive connection stops at once."""
    front = front_of_gate.process
    with httpx.Client(base_url=front.base_url) as http:
        assert http.get("/").status_code == 200
        front.terminate()
        assert front.process.wait(5) == 0


def test_sigterm_between_a_connection_and_its_request(
    front_of_gate: GatedFront, body: dict[str, Any]
) -> None:
    """A client whose connection was accepted just before the stop still gets its response."""
    front, address = front_of_gate.process, front_of_gate.process.listener.getsockname()
    front_of_gate.gate.set()
    content = json.dumps(body).encode()
    with socket.create_connection(address) as late, socket.create_connection(address) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        front.terminate()
        # An idle connection is closed: from here on the front end is stopping.
        assert idle.recv(65536) == b""
        late.sendall(
            b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
        )
        answer = late.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"stop_reason":"end_turn"' in answer
    assert front.process.wait(PATIENCE_SECONDS) == 0


def test_end_of_the_daemon(front_of_gate: GatedFront) -> None:
    """When its daemon ends, the front end exits, even with requests in progress."""
    front = front_of_gate.process
    assert front.process.stdin is not None
    front.process.stdin.close()
    assert front.process.wait(2) == 0


class Metrics(MetricsServiceServicer):
    def GetMetrics(
        self, request: control.GetMetricsRequest, context: Any
    ) -> control.GetMetricsResponse:
        return control.GetMetricsResponse(text=b"anyclaude_up 1\n")


def test_metrics_are_the_daemons() -> None:
    """/metrics returns the text of the control API."""
    with FrontendProcess() as front:
        server = grpc.server(ThreadPoolExecutor(1))
        add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(target(front.paths.control_socket))
        server.start()
        answer = httpx.get(front.base_url + "/metrics")
        server.stop(None).wait(5)
        assert answer.text == "anyclaude_up 1\n"
        assert answer.headers["content-type"].startswith("text/plain")
