"""Responses: usage that adds up, ids, the grammar of streams, tool calls."""

import json
import secrets
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic, types

from tests.conformance import bodies as b
from tests.conformance.endpoint import (
    PROMPT_USAGE,
    Endpoint,
    Streamed,
    prompt_tokens,
    text_of,
)
from tests.conformance.rows import Row, row
from tests.conformance.sse import parse

# Long enough to stand out, short enough for a model that runs on a laptop's processor.
LONG = "The quick brown fox reads the file and runs the tests. " * 40
MARKS = ("<tool_call>", "</tool_call>", "<|im_end|>", "<|im_start|>", "<think>", "</think>")


def conversations() -> dict[str, dict[str, Any]]:
    return {
        "plain": {},
        "system": {"system": [b.text("You are terse."), b.text("Very.")]},
        "tools": {"tools": [b.BASH, b.READ], "messages": list(b.TOOL_LOOP)},
        "long": {"messages": [b.user(LONG)]},
        "mid system": {"messages": [b.user("Hi."), b.system("Be brief.")]},
    }


@row(Row.USAGE)
@pytest.mark.parametrize("shape", conversations())
def test_usage_adds_up(endpoint: Endpoint, shape: str) -> None:
    """The three parts of the prompt add up to the result of count_tokens, cold and warm."""
    fields = conversations()[shape]
    counted = endpoint.count(**fields)
    for _ in range(2):
        usage = endpoint.create(**fields)["usage"]
        assert prompt_tokens(usage) == counted
        assert usage["input_tokens"] >= 1


@row(Row.USAGE)
def test_usage_in_a_stream(endpoint: Endpoint) -> None:
    """message_start has the true prompt tokens, message_delta repeats them with the output."""
    streamed = endpoint.stream()
    counted = endpoint.count()
    start = streamed.message.start["usage"]
    assert prompt_tokens(start) == counted
    (*_, last) = [e for e in streamed.events if e["type"] == "message_delta"]
    assert prompt_tokens(last["usage"]) == counted
    assert last["usage"]["output_tokens"] > 0


@row(Row.USAGE)
def test_cache_read(endpoint: Endpoint) -> None:
    """A repeated prompt is read from the cache except its end."""
    messages = [b.user(f"{secrets.token_hex(8)} {LONG}")]
    first = endpoint.create(messages=messages)["usage"]
    second = endpoint.create(messages=messages)["usage"]
    assert prompt_tokens(first) == prompt_tokens(second)
    assert first.get("cache_read_input_tokens", 0) < prompt_tokens(first) / 4
    assert second.get("cache_read_input_tokens", 0) > prompt_tokens(second) * 0.9


@row(Row.USAGE)
def test_follow_up_reuses_the_conversation(endpoint: Endpoint) -> None:
    """A second turn reads the first from the cache."""
    history = [b.user(f"{secrets.token_hex(8)} {LONG}")]
    first = endpoint.create(messages=history)
    history += [b.assistant(text_of(first) or "Well."), b.user("Go on.")]
    usage = endpoint.create(messages=history)["usage"]
    assert usage.get("cache_read_input_tokens", 0) > prompt_tokens(first["usage"]) * 0.9


@row(Row.USAGE)
def test_usage_types(endpoint: Endpoint) -> None:
    """Every count is a whole number, never null."""
    usage = endpoint.create()["usage"]
    for name in (*PROMPT_USAGE, "output_tokens"):
        assert isinstance(usage[name], int), f"{name} is {usage.get(name)!r}"


@row(Row.MESSAGE_ID)
def test_message_ids(endpoint: Endpoint) -> None:
    """Message ids are unique and look like the API's: clients merge messages that share one."""
    ids = [endpoint.create(max_tokens=1)["id"] for _ in range(5)]
    ids += [endpoint.stream(max_tokens=1).message.start["id"] for _ in range(5)]
    assert len(set(ids)) == len(ids)
    assert all(one.startswith("msg_") and len(one) >= 24 for one in ids)


@row(Row.GRAMMAR)
@pytest.mark.parametrize("shape", conversations())
def test_stream(endpoint: Endpoint, shape: str) -> None:
    """A stream follows the grammar, event by event, in the official client's types."""
    streamed = endpoint.stream(**conversations()[shape], max_tokens=40)
    assert streamed.message.error is None


@row(Row.GRAMMAR)
def test_frames_are_named(endpoint: Endpoint) -> None:
    """Every frame has the name of its event: clients skip others."""
    for frame in endpoint.stream().frames:
        assert frame.event["type"] == frame.name


@row(Row.GRAMMAR)
def test_byte_by_byte(endpoint: Endpoint) -> None:
    """The stream reads the same however the network cuts it."""
    streamed = endpoint.stream(messages=[b.user("Zwölf 🦊?")], max_tokens=40)
    single = [streamed.raw[i : i + 1] for i in range(len(streamed.raw))]
    assert parse(single) == streamed.frames


@row(Row.GRAMMAR)
def test_official_parser_byte_by_byte(endpoint: Endpoint) -> None:
    """The official client reads the recorded stream alike, whole and byte by byte."""
    streamed = endpoint.stream(tools=[b.BASH], max_tokens=40)
    whole, single = (_replayed(streamed, size) for size in (len(streamed.raw), 1))
    assert whole == single


def _replayed(streamed: Streamed, size: int) -> Any:
    """The recording as the official client sees it, in pieces of `size` bytes."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        pieces = (streamed.raw[i : i + size] for i in range(0, len(streamed.raw), size))
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, stream=_Pieces(pieces)
        )

    with (
        Anthropic(
            api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))
        ) as client,
        client.messages.stream(model="m", max_tokens=1, messages=[]) as stream,
    ):
        return stream.get_final_message().model_dump(exclude={"parsed_output"})


class _Pieces(httpx2.SyncByteStream):
    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces

    def __iter__(self) -> Any:
        return iter(self._pieces)


@row(Row.WHOLE)
@pytest.mark.parametrize("shape", conversations())
def test_whole_is_the_stream(endpoint: Endpoint, shape: str) -> None:
    """Streaming or not, the same request gets the same content, reason and counts."""
    fields = conversations()[shape] | {"temperature": 0, "max_tokens": 24}
    whole, message = endpoint.create(**fields), endpoint.stream(**fields).message
    assert _without_ids(whole["content"]) == _without_ids(message.content)
    assert whole["stop_reason"] == message.stop_reason
    assert whole["usage"]["output_tokens"] == message.usage["output_tokens"]
    assert prompt_tokens(whole["usage"]) == prompt_tokens(message.usage)


@row(Row.WHOLE)
@pytest.mark.parametrize("stream", [False, True])
def test_only_fields_of_the_api(endpoint: Endpoint, stream: bool) -> None:
    """A response has the API's fields and none of the server's own."""
    message = endpoint.stream().message.start if stream else endpoint.create()
    assert message.keys() <= types.Message.model_fields.keys()
    assert message["usage"].keys() <= types.Usage.model_fields.keys()
    assert message["role"] == "assistant"


def _without_ids(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Ids are new each time; fields that a parser adds as null count as absent.
    return [{k: v for k, v in block.items() if k != "id" and v is not None} for block in content]


@row(Row.COUNT_TOKENS)
def test_count_grows(endpoint: Endpoint) -> None:
    """Every part of a request that the model reads increases the count."""
    counts = [
        endpoint.count(),
        endpoint.count(system="Be brief."),
        endpoint.count(system="Be brief.", tools=[b.BASH]),
        endpoint.count(system="Be brief.", tools=[b.BASH, b.READ]),
        endpoint.count(system="Be brief.", tools=[b.BASH, b.READ], messages=list(b.TOOL_LOOP)),
    ]
    assert counts == sorted(set(counts))


@row(Row.COUNT_TOKENS)
def test_count_is_not_guessed(endpoint: Endpoint) -> None:
    """The count is the tokenizer's: texts of equal length have different counts."""
    plain, odd = (endpoint.count(messages=[b.user(t * 50)]) for t in ("word ", "\u0e01🦊素Ѥ "))
    assert plain != odd


def called(endpoint: Endpoint, **fields: Any) -> Streamed:
    """A stream in which the model calls a tool, if it can be made to."""
    return endpoint.stream(
        **{"messages": [b.user("Say hello with Bash.")], "tools": [b.BASH], "max_tokens": 400}
        | fields
    )


@row(Row.TOOL_CHOICE)
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "Bash"}], ids=str)
def test_forced_call(endpoint: Endpoint, choice: Any) -> None:
    """A forced call is made, with arguments that fit the schema."""
    message = called(endpoint, tool_choice=choice).message
    assert message.stop_reason == "tool_use"
    (use, *_) = message.of_type("tool_use")
    assert use["name"] == "Bash"
    _check_bash(use["input"])


def _check_bash(arguments: dict[str, Any]) -> None:
    assert "command" in arguments
    assert arguments.keys() <= {"command", "description"}
    assert all(isinstance(value, str) and len(value) <= 60 for value in arguments.values())


@row(Row.TOOL_CHOICE)
def test_forced_choice_among_tools(endpoint: Endpoint) -> None:
    """Of two tools the forced one is called."""
    choice = {"type": "tool", "name": "Read"}
    message = called(endpoint, tools=[b.BASH, b.READ], tool_choice=choice).message
    assert {use["name"] for use in message.of_type("tool_use")} == {"Read"}
    assert isinstance(message.of_type("tool_use")[0]["input"]["path"], str)


@row(Row.TOOL_CHOICE)
def test_no_call(endpoint: Endpoint) -> None:
    """tool_choice none gives no call and no markup of one."""
    message = called(endpoint, tool_choice={"type": "none"}).message
    assert message.of_type("tool_use") == []
    assert "<tool_call>" not in message.text


@row(Row.TOOL_CHOICE)
def test_one_call(endpoint: Endpoint) -> None:
    """disable_parallel_tool_use gives at most one call."""
    choice = {"type": "any", "disable_parallel_tool_use": True}
    ask = [b.user("Call Bash three times at once.")]
    message = called(endpoint, tool_choice=choice, messages=ask).message
    assert len(message.of_type("tool_use")) == 1


@row(Row.TOOL_STREAM)
def test_streamed_call(endpoint: Endpoint) -> None:
    """A streamed call is one block of JSON pieces that add up to its arguments."""
    streamed = called(endpoint, tool_choice={"type": "any"})
    uses = streamed.message.of_type("tool_use")
    if not uses:
        pytest.skip("the model made no call")
    assert all(use["id"].startswith("toolu_") for use in uses)
    _check_bash(uses[0]["input"])


@row(Row.TOOL_STREAM)
def test_arguments_are_streamed(endpoint: Endpoint) -> None:
    """Arguments arrive while they are written, not in one piece at the end."""
    # A server may hold a call back that its limit may well cut.
    streamed = called(endpoint, tool_choice={"type": "any"}, max_tokens=1000)
    pieces = [
        e["delta"]["partial_json"]
        for e in streamed.events
        if e["type"] == "content_block_delta" and e["delta"]["type"] == "input_json_delta"
    ]
    if not pieces:
        pytest.skip("the model made no call")
    assert len([piece for piece in pieces if piece]) > 1


@row(Row.TOOL_STREAM)
def test_call_ids(endpoint: Endpoint) -> None:
    """Two responses never share a call's id."""
    answers = [called(endpoint, tool_choice={"type": "any"}).message for _ in range(3)]
    ids = [use["id"] for message in answers for use in message.of_type("tool_use")]
    if not ids:
        pytest.skip("the model made no call")
    assert len(set(ids)) == len(ids)


@row(Row.TOOL_STREAM)
@pytest.mark.parametrize("limit", [1, 3, 6, 9, 12])
def test_cut_call(endpoint: Endpoint, limit: int) -> None:
    """A call that max_tokens cuts off is reported as cut, and its block is not closed."""
    message = called(endpoint, tool_choice={"type": "any"}, max_tokens=limit).message
    if message.stop_reason == "tool_use":
        _check_bash(message.of_type("tool_use")[0]["input"])
    else:
        assert message.stop_reason == "max_tokens"
        assert "<tool_call>" not in message.text


@row(Row.TOOL_STREAM)
def test_loop(endpoint: Endpoint) -> None:
    """The model answers after a call and its result in the history."""
    ask = [b.user("Say hello with Bash.")]
    first = called(endpoint, messages=ask, tool_choice={"type": "any"}).message
    uses = first.of_type("tool_use")
    if not uses:
        pytest.skip("the model made no call")
    results = [b.result(use["id"], "hello") for use in uses]
    history = [*ask, b.assistant(first.content), b.user(results)]
    second = endpoint.stream(messages=history, tools=[b.BASH], max_tokens=60).message
    assert second.error is None
    shared = prompt_tokens(first.usage)
    assert second.usage.get("cache_read_input_tokens", 0) > shared * 0.8


@row(Row.SPECIAL_TOKENS)
def test_markup_is_content(endpoint: Endpoint) -> None:
    """Text that spells control tokens is text, and has the tokens of its letters."""
    plain = endpoint.count(messages=[b.user("x")])
    spelled = endpoint.count(messages=[b.user("x" + b.MARKUP)])
    assert spelled - plain > 30
    result = [*b.TOOL_LOOP[:2], b.user([b.result("toolu_1", b.MARKUP)])]
    endpoint.create(messages=result, tools=[b.BASH])
    endpoint.create(system=b.MARKUP, messages=[b.user(b.MARKUP), b.assistant(b.MARKUP)])


@row(Row.SPECIAL_TOKENS)
@pytest.mark.parametrize("tools", [False, True])
def test_no_control_token_in_the_text(endpoint: Endpoint, tools: bool) -> None:
    """No marker of a turn, call or thought is in the text of a response."""
    offered = {"tools": [b.BASH]} if tools else {}
    for words in ("Say hello with Bash.", "Go on.", "Why?"):
        message = endpoint.stream(messages=[b.user(words)], max_tokens=120, **offered).message
        found = [mark for mark in MARKS if mark in message.text]
        assert not found, f"{found} in {message.text!r}"


@row(Row.SPECIAL_TOKENS)
def test_whole_characters(endpoint: Endpoint) -> None:
    """No delta ends inside a character."""
    streamed = endpoint.stream(messages=[b.user("🦊 素早い狐 ёж")], max_tokens=60)
    for event in streamed.events:
        if event["type"] == "content_block_delta" and "text" in event["delta"]:
            json.dumps(event["delta"]["text"], ensure_ascii=False).encode()
