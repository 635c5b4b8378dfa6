"""The front end's responses, over real processes and sockets, read by the official client."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.scripted_worker import ScriptedWorker

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def tool_answer(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
    yield say.started()
    yield say.thinking_start(0)
    yield say.delta(0, thinking="hm")
    yield say.delta(0, signature="sig")
    yield say.stop(0)
    yield say.text_start(1)
    yield say.delta(1, text="I look. \u2028 \U0001f600")
    yield say.stop(1)
    yield say.tool_start(2)
    yield say.delta(2, partial_json='{"command": "ls"}')
    yield say.stop(2)
    yield say.finished(worker.STOP_REASON_TOOL_USE)


def test_whole_answer(client: anthropic.Anthropic) -> None:
    """A non-streaming request gets the content, its own model name and the worker's counts."""
    message = client.messages.create(model="claude-x", max_tokens=10, messages=HELLO)
    assert [block.to_dict() for block in message.content] == [
        {"type": "text", "text": "Hello there"}
    ]
    assert message.model == "claude-x"
    assert message.usage.cache_read_input_tokens == 90
    assert message.usage.cache_creation_input_tokens == 9
    assert message.usage.input_tokens == 1
    assert message.usage.output_tokens == 5
    assert message._request_id


def test_streamed_answer_is_the_whole_answer(
    client: anthropic.Anthropic, scripted: ScriptedWorker
) -> None:
    """All kinds of blocks are the same with and without streaming."""
    scripted.script = tool_answer
    whole = client.messages.create(model="claude-x", max_tokens=10, messages=HELLO)
    with client.messages.stream(model="claude-x", max_tokens=10, messages=HELLO) as stream:
        streamed = stream.get_final_message()
    assert [b.to_dict() for b in streamed.content] == [b.to_dict() for b in whole.content]
    assert streamed.stop_reason == whole.stop_reason == "tool_use"
    assert streamed.usage.to_dict() == whole.usage.to_dict()
    assert streamed.id != whole.id


def test_worker_gets_the_body_unchanged_and_the_identity(
    http: httpx.Client, scripted: ScriptedWorker
) -> None:
    """The worker gets the client's bytes unchanged, and the identity."""
    raw = (
        b'{"max_tokens" : 10,  "model":"m", "messages":[{"role":"user","content":"x"}],'
        b'"new_field":[1]}'
    )
    headers = {"x-claude-code-session-id": "s1", "x-claude-code-agent-id": "a1"}
    answer = http.post("/v1/messages?beta=true", content=raw, headers=headers)
    assert answer.status_code == 200
    (request,) = scripted.requests
    assert request.body_json == raw
    assert request.request_id == answer.headers["request-id"]
    assert (request.identity.session_id, request.identity.agent_id) == ("s1", "a1")


@pytest.mark.parametrize("stream", [True, False])
def test_answer_headers(http: httpx.Client, body: dict[str, Any], stream: bool) -> None:
    """The response names its mode and, if known in time, how much of the prompt was reused."""
    answer = http.post("/v1/messages", json={**body, "stream": stream})
    assert answer.headers["x-anyclaude-mode"] == "mlx-lm"
    assert answer.headers["x-anyclaude-cache-read"] == "90"
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers


def test_a_model_without_tool_calls_says_so(
    front: FrontendProcess, scripted: ScriptedWorker, http: httpx.Client, body: dict[str, Any]
) -> None:
    """A header tells a request that offers tools, and so does the model's row in the list."""
    plain = route(scripted.socket_path)
    plain.model.has_tools = False
    front.push(plain)
    tool = {"name": "Read", "input_schema": {"type": "object"}}

    offered = http.post("/v1/messages", json={**body, "tools": [tool]})
    without = http.post("/v1/messages", json=body)
    (listed,) = http.get("/v1/models").json()["data"]

    assert (offered.status_code, without.status_code) == (200, 200)
    assert "no tool calls" in offered.headers["x-anyclaude-not-served"]
    assert "x-anyclaude-not-served" not in without.headers
    assert "no tool calls" in listed["description"]


def test_every_frame_is_named(http: httpx.Client, body: dict[str, Any]) -> None:
    """SDKs ignore frames without an event line."""
    answer = http.post("/v1/messages", json={**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = answer.text.strip().split("\n\n")
    for frame in frames:
        name, data = frame.split("\n")
        assert name == "event: " + json.loads(data.removeprefix("data: "))["type"]


def test_warm_up(client: anthropic.Anthropic, scripted: ScriptedWorker) -> None:
    """max_tokens 0 fills the cache: no content, stop reason max_tokens, true usage."""

    def nothing(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        yield say.started()
        yield say.finished(worker.STOP_REASON_MAX_TOKENS, output_tokens=0)

    scripted.script = nothing
    message = client.messages.create(model="claude-x", max_tokens=0, messages=HELLO)
    assert (message.content, message.stop_reason) == ([], "max_tokens")
    assert message.usage.cache_creation_input_tokens == 9


def test_message_and_request_ids_are_unique(http: httpx.Client, body: dict[str, Any]) -> None:
    """Ids are unique, since clients merge messages that share one."""
    answers = [http.post("/v1/messages", json=body) for _ in range(20)]
    assert len({answer.json()["id"] for answer in answers}) == 20
    assert len({answer.headers["request-id"] for answer in answers}) == 20


def test_count_tokens(http: httpx.Client, body: dict[str, Any]) -> None:
    """The response has the worker's count and nothing else; max_tokens is not needed."""
    del body["max_tokens"]
    answer = http.post("/v1/messages/count_tokens", json=body)
    assert answer.json() == {"input_tokens": 100}
    assert answer.headers["x-anyclaude-mode"] == "mlx-lm"


def test_count_tokens_refused(client: anthropic.Anthropic, scripted: ScriptedWorker) -> None:
    """A prompt that the worker refuses to count is an error with its status."""
    scripted.count = worker.CountTokensResponse(failed=say.failed(400, "no such block").failed)
    with pytest.raises(anthropic.BadRequestError, match="no such block"):
        client.messages.count_tokens(model="m", messages=HELLO)


def test_models_of_other_modes_are_not_offered(front: FrontendProcess, http: httpx.Client) -> None:
    """Only the mode's model is listed; in mode auto rules choose, so that is the first one's."""
    routes = {mode: route(mode=mode) for mode in ("mlx-lm", "lmstudio", "auto")}
    routes["lmstudio"].model.id = "claude-theirs"
    front.push(*routes.values())

    def listed(**headers: str) -> list[str]:
        models = http.get("/v1/models", headers=headers).json()["data"]
        return [model["id"] for model in models]

    assert listed() == ["anyclaude-scripted"]
    assert listed(**{"x-anyclaude-mode": "lmstudio"}) == ["claude-theirs"]
    assert listed(**{"x-anyclaude-mode": "auto"}) == ["anyclaude-scripted"]
    assert http.get("/v1/models/claude-theirs").status_code == 404


def test_models(client: anthropic.Anthropic) -> None:
    """The official client reads the models behind the routes."""
    page = client.models.list()
    (model,) = page.data
    assert (page.first_id, page.last_id, page.has_more) == (model.id, model.id, False)
    assert (model.id, model.max_input_tokens) == ("anyclaude-scripted", 32768)
    assert client.models.retrieve("anyclaude-scripted").display_name == "Scripted"
    with pytest.raises(anthropic.NotFoundError, match="Known models: anyclaude-scripted"):
        client.models.retrieve("other/model")


def test_mode_header_chooses_the_route(
    front: FrontendProcess, scripted: ScriptedWorker, http: httpx.Client, body: dict[str, Any]
) -> None:
    """The mode header wins over the default; an unknown mode is refused with the known ones."""
    with ScriptedWorker(lambda _: say.text_answer("other")) as other:
        front.push(
            route(scripted.socket_path), route(other.socket_path, mode="lmstudio"), version=0
        )
        answer = http.post("/v1/messages", json=body, headers={"x-anyclaude-mode": "lmstudio"})
        assert answer.json()["content"][0]["text"] == "other"
        assert answer.headers["x-anyclaude-mode"] == "lmstudio"
        refused = http.post("/v1/messages", json=body, headers={"x-anyclaude-mode": "nope"})
        assert refused.status_code == 400
        assert "lmstudio, mlx-lm" in refused.json()["error"]["message"]


def test_failed_before_the_start_is_a_status(
    http: httpx.Client, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """A refused prompt is an HTTP error, also for streams, with its sentence unchanged."""
    sentence = "prompt is too long: 40000 tokens > 32768 maximum"
    scripted.script = lambda _: iter([say.progress(), say.failed(400, sentence)])
    for stream in (True, False):
        answer = http.post("/v1/messages", json={**body, "stream": stream})
        assert answer.status_code == 400
        assert answer.json()["error"] == {"type": "invalid_request_error", "message": sentence}
        assert answer.json()["request_id"] == answer.headers["request-id"]


def test_worker_asks_to_retry(
    http: httpx.Client, scripted: ScriptedWorker, body: dict[str, Any]
) -> None:
    """The worker's 529 keeps its status, type and retry-after."""
    scripted.script = lambda _: iter([say.failed(529, "queue full", retry_after_seconds=7)])
    answer = http.post("/v1/messages", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (529, "7")
    assert answer.json()["error"]["type"] == "overloaded_error"
