"""Relayed modes in the front end: a request is validated while the relay already works on it."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.worker.v1 import worker_pb2 as worker
from tests.integration.frontend_process import FrontendProcess, post, route
from tests.integration.scripted_worker import ScriptedWorker


@pytest.fixture
def relaying(scripted: ScriptedWorker) -> Iterator[FrontendProcess]:
    """A front end without records of other tests."""
    with FrontendProcess() as front:
        front.push(route(scripted.socket_path, mode="it", relayed=True), default_mode="it")
        yield front


def silent(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
    threading.Event().wait()
    yield from ()


def test_an_invalid_request(
    relaying: FrontendProcess, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """The front end refuses it, records why, and cancels the relay's call."""
    scripted.script = silent
    answer = post(relaying, {**body, "messages": []})
    assert (answer.status_code, answer.headers["x-anyclaude-mode"]) == (400, "it")
    assert "messages" in answer.json()["error"]["message"]
    assert scripted.over.wait(10)
    record = relaying.next_record()
    assert record.outcome == frontend.OUTCOME_FAILED
    assert record.error_message == answer.json()["error"]["message"]


def test_a_request_is_recorded(
    relaying: FrontendProcess, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """The record has model, session and mode, though the relay gets no identity."""
    answer = post(relaying, body, **{"x-claude-code-session-id": "s1"})
    assert answer.status_code == 200
    (request,) = scripted.requests
    assert (request.mode, request.HasField("identity")) == ("it", False)
    record = relaying.next_record()
    assert (record.requested_model, record.mode) == (body["model"], "it")
    assert record.identity.session_id == "s1"


def test_messages_of_a_server_are_not_recorded(
    relaying: FrontendProcess, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """A server's error may quote the prompt: the client gets it, the record omits it."""
    failed = worker.Failed(status=400, type="invalid_request_error", message="secret words")
    scripted.script = lambda _: iter([worker.GenerateResponse(failed=failed)])
    assert "secret words" in post(relaying, body).text
    assert relaying.next_record().error_message == ""
