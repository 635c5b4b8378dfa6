"""Relayed modes in the front end: the relay is asked while the request is judged here."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.worker.v1 import worker_pb2 as worker
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.scripted_worker import ScriptedWorker

QUESTION = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def relaying(scripted: ScriptedWorker) -> Iterator[FrontendProcess]:
    """A front end of its own, whose records no other test has left."""
    with FrontendProcess() as front:
        front.push(route(scripted.socket_path, mode="it", relayed=True), default_mode="it")
        yield front


def silent(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
    threading.Event().wait()
    yield from ()


def ask(front: FrontendProcess, body: object) -> httpx.Response:
    headers = {"x-claude-code-session-id": "s1"}
    return httpx.post(f"{front.base_url}/v1/messages", json=body, headers=headers, trust_env=False)


def test_a_request_that_is_none(relaying: FrontendProcess, scripted: ScriptedWorker) -> None:
    """Refused in our words, which the record keeps; the relay that was asked is hung up on."""
    scripted.script = silent
    answer = ask(relaying, QUESTION | {"messages": []})
    assert (answer.status_code, answer.headers["x-anyclaude-mode"]) == (400, "it")
    assert "messages" in answer.json()["error"]["message"]
    assert scripted.over.wait(10)
    record = relaying.next_record()
    assert record.outcome == frontend.OUTCOME_FAILED
    assert record.error_message == answer.json()["error"]["message"]


def test_a_request_is_told_in_the_record(
    relaying: FrontendProcess, scripted: ScriptedWorker
) -> None:
    """As in any mode, though the relay gets nothing but what the client said."""
    assert ask(relaying, QUESTION).status_code == 200
    (asked,) = scripted.requests
    assert (asked.mode, asked.HasField("identity")) == ("it", False)
    record = relaying.next_record()
    assert (record.requested_model, record.identity.session_id, record.mode) == ("m", "s1", "it")


def test_a_servers_own_words_are_not_kept(
    relaying: FrontendProcess, scripted: ScriptedWorker
) -> None:
    """They may quote the prompt: the client reads them, the record does not."""
    said = worker.Failed(status=400, type="invalid_request_error", message="secret words")
    scripted.script = lambda _: iter([worker.GenerateResponse(failed=said)])
    assert "secret words" in ask(relaying, QUESTION).text
    assert relaying.next_record().error_message == ""
