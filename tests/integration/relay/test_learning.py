"""What the relay learns of servers and carries for them: one relay, many scripted servers."""

import json
from collections.abc import Callable, Iterator, Sequence

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    HELLO,
    STREAM,
    Request,
    ScriptedUpstream,
    Step,
    chunk,
    event,
    response,
)

Answer = Callable[[Request], Sequence[Step]]

MARK = {"cache_control": {"type": "ephemeral"}}
USER = {"role": "user", "content": "go"}
TOOL = {"name": "Read", "input_schema": {"type": "object"}}
ASK = {"model": "m", "max_tokens": 2000, "messages": [USER]}
WANTS_THOUGHTS = {**ASK, "thinking": {"type": "adaptive"}, "tools": [TOOL]}
DETAILS = [{"type": "reasoning.encrypted", "data": "c2lnbmF0dXJl", "id": "c1", "index": 0}]
SIGNED = {"google": {"thought_signature": "c2lnbmF0dXJl"}}
CALL = {"index": 0, "id": "c1", "function": {"name": "Read", "arguments": '{"path": "a"}'}}


def refused(message: str, status: int = 400) -> list[Step]:
    return [response(status, {"error": {"message": message}})]


def has_field(name: str, message: str) -> Answer:
    return lambda request: refused(message) if name in request.json else HELLO


def has_reasoning(request: Request) -> Sequence[Step]:
    for index, message in enumerate(request.json["messages"]):
        if message["role"] == "assistant" and "reasoning_content" not in message:
            return refused(f"reasoning_content is missing in assistant message at index {index}")
    return HELLO


def alternates(request: Request) -> Sequence[Step]:
    last = None
    for message in request.json["messages"]:
        if message["role"] == "user" and last in ("tool", "user"):
            return refused(f"Unexpected role 'user' after role '{last}'")
        last = message["role"]
    return HELLO


def wants_details(request: Request) -> Sequence[Step]:
    for message in request.json["messages"]:
        if message.get("tool_calls"):
            kept = message.get("reasoning_details")
            return HELLO if kept and kept[-1] == DETAILS[0] else refused("reasoning details lost")
    begin = chunk(reasoning="I look.", reasoning_details=[{"type": "reasoning.text", "text": "I "}])
    more = chunk(reasoning_details=[{"type": "reasoning.text", "text": "look."}])
    return [STREAM, begin, more, chunk(tool_calls=[CALL], reasoning_details=DETAILS), chunk("stop")]


def wants_signature(request: Request) -> Sequence[Step]:
    for message in request.json["messages"]:
        for call in message.get("tool_calls") or []:
            kept = call.get("extra_content") == SIGNED
            return HELLO if kept else refused("Function call is missing a thought_signature")
    return [STREAM, chunk(tool_calls=[{**CALL, "extra_content": SIGNED}]), chunk("tool_calls")]


def refuses_everything(request: Request) -> Sequence[Step]:
    return refused("top_k or temperature is not supported")


def counts_the_answer(request: Request) -> Sequence[Step]:
    if request.json["max_tokens"] > 1000 + 4000:
        total = 1000 + request.json["max_tokens"]
        return refused(f"Request too large for model `m`: Limit 6000, Requested {total}", 413)
    return HELLO


def labelled(kind: str, *steps: Step) -> Answer:
    head = f"HTTP/1.1 200 OK\r\n{kind}connection: close\r\n\r\n".encode()
    return lambda _: [head, *steps]


def in_stream(**error: object) -> Answer:
    return lambda _: [STREAM, event({"error": {"message": "why", **error}})]


WHOLE = json.dumps(
    {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
).encode()
CHUNKS = [
    b'{"choices": [{"delta": {"content": "Hello"}}]}',
    b'{"choices": [{"delta": {}, "finish_reason": "stop"}]}',
]
LABELS = {
    "json": labelled("content-type: application/json\r\n", *HELLO[1:]),
    "plain": labelled("content-type: text/plain; charset=utf-8\r\n", *HELLO[1:]),
    "bytes": labelled("content-type: application/octet-stream\r\n", *HELLO[1:]),
    "none": labelled("", *HELLO[1:]),
    "blanks": labelled("content-type: application/json\r\n", b"\n\n", b": hi\n\n", *HELLO[1:]),
    "document": labelled("content-type: text/event-stream\r\n", WHOLE[:9], WHOLE[9:]),
    "unlabelled": labelled("", b"\r\n", WHOLE),
    "page": labelled("content-type: text/html\r\n", *HELLO[1:]),
    "lines": labelled("content-type: application/x-ndjson\r\n", *(b"%b\n" % c for c in CHUNKS)),
    "list": labelled("content-type: application/json\r\n", b"[%b]" % b",".join(CHUNKS)),
}
CLASSES = {
    "code": ({"code": 400}, 400),
    "text": ({"code": "400"}, 400),
    "type": ({"type": "invalid_request_error"}, 400),
    "limit": ({"type": "rate_limit_error"}, 429),
    "overload": ({"type": "overloaded_error"}, 529),
    "key": ({"code": "invalid_api_key"}, 401),
}
LOADED = {"id": "loaded", "meta": {"n_ctx": 65536, "n_ctx_train": 262144}}
ROUTERS = {
    "status": [
        {"id": "a", "status": {"value": "unloaded"}},
        {**LOADED, "status": {"value": "loaded"}},
    ],
    "word": [{"id": "a", "status": "unloaded"}, {**LOADED, "status": "loaded"}],
    "state": [{"id": "a", "state": "stopped"}, {**LOADED, "state": "ready"}],
    "flag": [{"id": "a", "loaded": False}, {**LOADED, "loaded": True}],
    "first": [
        {**LOADED, "status": {"value": "loaded"}},
        {"id": "a", "status": {"value": "unloaded"}},
    ],
    "list": [{"id": "a", "status": "unloaded"}, {**LOADED, "status": "loaded"}],
    "embedding": [
        {"id": "a", "type": "embedding", "status": "loaded"},
        {**LOADED, "status": "loaded"},
    ],
}
SERVERS: dict[str, Answer] = {
    "field": has_field("top_k", "TOP_K is not supported"),
    "field2": has_field("top_k", "TOP_K is not supported"),
    "expects": has_reasoning,
    "alternates": alternates,
    "openrouter": wants_details,
    "google": wants_signature,
    "claude-there": lambda _: HELLO,
    "never": refuses_everything,
    "total": counts_the_answer,
    **{f"label-{name}": answer for name, answer in LABELS.items()},
    **{f"class-{name}": in_stream(**error) for name, (error, _) in CLASSES.items()},
    **{f"router-{name}": lambda _: HELLO for name in ROUTERS},
}
TABLES = {
    "openrouter": {"kind": "openrouter"},
    "claude-there": {"kind": "openrouter", "model": "anthropic/claude-sonnet-4.6"},
    **{f"router-{name}": {"kind": "llama-cpp", "model": ""} for name in ROUTERS},
}


class Servers:
    """All servers, each below a path of its own, and a relay to them."""

    def __init__(self, upstream: ScriptedUpstream, relay: RelayProcess) -> None:
        self.upstream, self.relay = upstream, relay

    def message(self, name: str, **fields):
        return self.relay.message(name, {**ASK, **fields})

    def sent(self, name: str) -> list[dict]:
        return [request.json for request in self.upstream.posts(f"/{name}/v1/chat/completions")]


def script(request: Request) -> Sequence[Step]:
    _, name, path = request.path.split("/", 2)
    if path == "v1/chat/completions":
        return SERVERS[name](request)
    if path == "v1/models" and name.startswith("router-"):
        models = ROUTERS[name.removeprefix("router-")]
        return [response(200, models if name == "router-list" else {"data": models})]
    if path == "props":
        return [response(200, {"default_generation_settings": {"n_ctx": 0}})]
    return [response(404, {"detail": "Not Found"})]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ScriptedUpstream(script) as upstream:
        common = {"kind": "other", "dialect": "openai", "model": "m1", "breaker_failures": 1}
        tables = {
            name: {"base_url": f"{upstream.base_url}/{name}", **common, **TABLES.get(name, {})}
            for name in SERVERS
        }
        with RelayProcess(tables) as relay:
            yield Servers(upstream, relay)


def turn(number: int, thought: str = "") -> list[dict]:
    call = {"type": "tool_use", "id": f"c{number}", "name": "Read", "input": {}}
    thinking = [{"type": "thinking", "thinking": thought, "signature": "x"}] if thought else []
    result = {"type": "tool_result", "tool_use_id": f"c{number}", "content": "x"}
    return [
        {"role": "assistant", "content": [*thinking, call]},
        {"role": "user", "content": [result]},
    ]


def test_a_refused_field_is_shown_and_forgotten(servers: Servers):
    """What is learned is in the status until it is forgotten; then the field is sent again."""
    for _ in range(2):
        servers.message("field", top_k=5)
    assert ["top_k" in body for body in servers.sent("field")] == [True, False, False]
    assert servers.relay.status("field").learned == ["refuses top_k"]
    forgotten = servers.relay.stub.ForgetLearned(pb.ForgetLearnedRequest(mode="field"))
    assert forgotten.learned == ["refuses top_k"]
    assert servers.relay.status("field").learned == []
    servers.message("field", top_k=5)
    assert "top_k" in servers.sent("field")[3]


def test_a_refused_field_is_left_out_only_there(servers: Servers):
    """A lesson about one server does not change requests to another."""
    servers.message("field2", top_k=5)
    assert "top_k" in servers.sent("field2")[0]


def test_a_missing_field_is_filled_in(servers: Servers):
    """Thoughts that another model did not leave are filled in, and real ones go along."""
    for messages in ([USER, *turn(1)], [USER, *turn(1), *turn(2, "hm")], [USER, *turn(1, "hm")]):
        servers.message("expects", messages=messages, thinking={"type": "adaptive"})
    last = servers.sent("expects")[-1]["messages"]
    assert last[1]["reasoning_content"] == "hm"
    assert servers.relay.status("expects").learned == ["needs reasoning expected"]


WORDS = {"type": "text", "text": "and hurry"}


@pytest.mark.parametrize(
    "messages",
    [
        [USER, *turn(1)[:1], {"role": "user", "content": [*turn(1)[1]["content"], WORDS]}],
        [USER, *turn(1), USER],
        [USER, USER],
        [USER, {"role": "assistant", "content": "ok"}, USER, {"role": "system", "content": "note"}],
        [USER, *turn(1), {"role": "system", "content": "note"}, USER],
        [USER, *turn(1), *turn(2), USER, {"role": "user", "content": [WORDS]}],
    ],
)
def test_alternation_is_learned_and_used(servers: Servers, messages):
    """A conversation of any shape is taken by a server that insists on alternating roles."""
    assert servers.message("alternates", messages=messages)["content"][0]["text"] == "Hello"
    sent = json.dumps(servers.sent("alternates")[-1]["messages"])
    assert all(text in sent for text in ("go", "note") if text in json.dumps(messages))


@pytest.mark.parametrize("name", ["openrouter", "google"])
def test_reasoning_state_comes_back(servers: Servers, name):
    """State that a server wants back travels through the client, also without any thinking."""
    first = servers.relay.message(name, WANTS_THOUGHTS)
    call = next(block for block in first["content"] if block["type"] == "tool_use")
    assert first["content"][0]["type"] == "thinking"
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "x"}
    messages = [
        USER,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = servers.relay.message(name, {**WANTS_THOUGHTS, "messages": messages})
    assert second["content"][0]["text"] == "Hello"
    if name == "openrouter":
        details = servers.sent(name)[-1]["messages"][1]["reasoning_details"]
        assert details == [{"type": "reasoning.text", "text": "I look."}, *DETAILS]


def test_claude_on_openrouter_gets_cache_control(servers: Servers):
    """The client's marks reach a Claude model on OpenRouter, where nothing is cached without."""
    system = [{"type": "text", "text": "You are."}, {"type": "text", "text": "Rules.", **MARK}]
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "x", **MARK}
    marked = {"role": "user", "content": [{"type": "text", "text": "hi", **MARK}]}
    messages = [marked, *turn(1)[:1], {"role": "user", "content": [result]}]
    servers.message("claude-there", system=system, messages=messages)
    sent = servers.sent("claude-there")[-1]["messages"]
    assert [("cache_control" in json.dumps(message)) for message in sent] == [
        True,
        True,
        False,
        True,
    ]
    servers.message("openrouter", system=system)
    assert "cache_control" not in json.dumps(servers.sent("openrouter")[-1])


def test_a_lesson_that_did_not_help_is_not_kept(servers: Servers):
    """A server that refuses every form of a request is not thought to refuse its fields."""
    with pytest.raises(ApiError) as error:
        servers.message("never", top_k=5, temperature=0.5)
    assert error.value.status == 400
    status = servers.relay.status("never")
    assert (status.learned, status.breaker) == ([], pb.BREAKER_STATE_CLOSED)


def test_an_answer_that_exceeds_a_limit_with_the_prompt_is_asked_shorter(servers: Servers):
    """Where a limit counts the requested answer, a shorter one is requested."""
    assert servers.message("total", max_tokens=32000)["content"][0]["text"] == "Hello"
    assert [body["max_tokens"] for body in servers.sent("total")] == [32000, 5000]


@pytest.mark.parametrize("name", LABELS)
def test_wrong_labels(servers: Servers, name):
    """The first character of a body decides whether it is a stream, not its label."""
    assert servers.message(f"label-{name}")["content"] == [{"type": "text", "text": "Hello"}]


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_in_a_stream_keeps_its_class(servers: Servers, name):
    """The client gets the status that the error stands for; an invalid request opens no breaker."""
    with pytest.raises(ApiError) as error:
        servers.message(f"class-{name}")
    assert error.value.status == CLASSES[name][1]
    if error.value.status < 500:
        assert servers.relay.status(f"class-{name}").breaker == pb.BREAKER_STATE_CLOSED


@pytest.mark.parametrize("name", ROUTERS)
def test_the_loaded_model_of_a_router(servers: Servers, name):
    """Of a list of models the loaded one is requested, so that no other one replaces it."""
    servers.message(f"router-{name}")
    assert servers.sent(f"router-{name}")[-1]["model"] == "loaded"
    info = servers.relay.status(f"router-{name}").model
    assert (info.id, info.context_window_tokens) == ("anyclaude-loaded", 65536)
