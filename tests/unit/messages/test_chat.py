"""Chat completions: bodies become Messages requests, and events become chunks."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.messages.chat_answer import DONE, PING, ChunkEncoder, completion
from anyclaude.messages.chat_request import messages_body
from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import MessagesRequest


def _body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made = messages_body({"model": "m", "messages": list(messages), **fields})
    MessagesRequest.of(made)
    return made


def _text(words: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": words}]


def test_a_whole_conversation() -> None:
    """Instructions, calls, results and later instructions keep their places."""
    call = {"id": "c1", "type": "function", "function": {"name": "Bash", "arguments": '{"a": 1}'}}
    other = {"id": "c2", "type": "function", "function": {"name": "Bash", "arguments": '{"a": '}}
    made = _body(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "In English."},
        {"role": "user", "content": "Run."},
        {"role": "assistant", "content": None, "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": _text("two")},
        {"role": "system", "content": "Hurry."},
        {"role": "user", "content": "Now?"},
    )
    assert made["system"] == "Be brief.\n\nIn English."
    assert [message["role"] for message in made["messages"]] == [
        *("user", "assistant", "user", "system", "user")
    ]
    calls, results = made["messages"][1]["content"], made["messages"][2]["content"]
    assert [(use["name"], use["input"]) for use in calls] == [
        ("Bash", {"a": 1}),
        ("Bash", {"arguments": '{"a": '}),
    ]
    assert [(done["tool_use_id"], done["content"]) for done in results] == [
        ("c1", _text("one")),
        ("c2", _text("two")),
    ]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
            },
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
                "title": None,
            },
        ),
        ({"type": "refusal", "refusal": "No."}, {"type": "text", "text": "No."}),
        ({"type": "input_audio", "input_audio": {}}, {"type": "input_audio", "input_audio": {}}),
    ],
)
def test_parts(part: dict[str, Any], block: dict[str, Any]) -> None:
    """Every part becomes a block, and none refuses the conversation."""
    made = _body({"role": "user", "content": [part]})
    assert made["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"stop": None, "seed": 1, "user": "u"}, {}),
        ({"reasoning_effort": "low"}, {"thinking": {"type": "adaptive"}}),
        ({"reasoning_effort": "xhigh"}, {"thinking": {"type": "adaptive"}}),
        ({"reasoning_effort": "none"}, {}),
        ({"response_format": {"type": "text"}}, {}),
    ],
)
def test_settings(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Settings with a counterpart arrive; the others are left out."""
    made = _body({"role": "user", "content": "Hi."}, **fields)
    assert made.items() >= expected.items()
    assert not {"seed", "user", "stop"} & made.keys()


def test_instructions_alone_are_a_question() -> None:
    """A conversation that consists of instructions is answered, as OpenAI does."""
    made = _body({"role": "developer", "content": "Say hi."})
    assert made["messages"] == [{"role": "user", "content": "Say hi."}]
    assert "system" not in made


def test_an_empty_answer() -> None:
    """It is an empty text, which clients read as one; beside calls it is null."""
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    message = {"id": "msg_1", "model": "m", "stop_reason": "end_turn", "usage": _USAGE}
    texts = [
        completion({**message, "content": content})["choices"][0]["message"]["content"]
        for content in ([], [call])
    ]
    assert texts == ["", None]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_the_choice_of_a_tool(choice: Any, expected: dict[str, Any]) -> None:
    """Each choice has its counterpart, and calls can be limited to one."""
    tool = {"type": "function", "function": {"name": "f"}}
    hi = {"role": "user", "content": "Hi."}
    fields = {"tools": [tool], "parallel_tool_calls": False}
    made = _body(hi, tool_choice=choice, **fields)
    assert made["tool_choice"] == {**expected, "disable_parallel_tool_use": True}


@pytest.mark.parametrize("document", [None, [], "x", {"messages": "x"}, {"messages": [1]}])
def test_what_is_no_request(document: Any) -> None:
    """Any JSON is a 400, never another error."""
    with pytest.raises(ApiError):
        messages_body(document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "function", "name", "text"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])
_MESSAGES = st.fixed_dictionaries(
    {"role": _ROLES | _JSON},
    optional=dict.fromkeys(("content", "tool_calls", "tool_call_id", "reasoning_content"), _JSON),
)
_FIELDS = (
    *("n", "logprobs", "stop", "tools", "tool_choice", "parallel_tool_calls", "max_tokens"),
    *("response_format", "reasoning_effort", "stream", "temperature"),
)


@given(
    st.fixed_dictionaries(
        {"messages": st.lists(_MESSAGES, max_size=3) | _JSON},
        optional=dict.fromkeys(_FIELDS, _JSON),
    )
)
def test_any_body_is_a_request_or_a_400(document: dict[str, Any]) -> None:
    """Whatever the fields hold, nothing fails but a refusal that the client can read."""
    status = 400
    try:
        MessagesRequest.of(messages_body({"model": "m", **document}))
    except ApiError as error:
        status = error.status
    assert status == 400


_USAGE = {
    "input_tokens": 1,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 3,
    "output_tokens": 4,
}


def _read(pieces: bytes) -> list[dict[str, Any]]:
    lines = [line for line in pieces.split(b"\n\n") if line.startswith(b"data: {")]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def test_two_calls_in_a_stream() -> None:
    """Calls are told apart by their index, pings are comments, and the end has the counts."""
    encode = ChunkEncoder(tells_usage=True, now=lambda: 7.0)
    tool = {"type": "tool_use", "name": "f", "input": {}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "m"}},
        {"type": "ping"},
    ]
    for index in (0, 1):
        delta = {"type": "input_json_delta", "partial_json": "{}"}
        events += [
            {"type": "content_block_start", "content_block": {**tool, "id": f"t{index}"}},
            {"type": "content_block_delta", "delta": delta},
            {"type": "content_block_stop"},
        ]
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    events += [{"type": "message_delta", "delta": end, "usage": _USAGE}, {"type": "message_stop"}]
    sent = b"".join(map(encode, events))
    chunks = _read(sent)

    assert PING in sent
    assert sent.endswith(DONE)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    indexes = [call["index"] for delta in deltas for call in delta.get("tool_calls", [])]
    assert indexes == [0, 0, 1, 1]
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 4,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def test_an_error_in_a_stream() -> None:
    """It comes in OpenAI's envelope, which official clients raise."""
    (sent,) = _read(ChunkEncoder(tells_usage=False)(ApiError(529, "Busy.").envelope("req_1")))
    assert sent["error"]["message"] == "Busy."
    assert sent["error"]["type"] == "overloaded_error"


def test_a_whole_answer() -> None:
    """Thinking, text and calls have their own fields."""
    message = {
        "id": "msg_1",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm."},
            {"type": "text", "text": "So "},
            {"type": "text", "text": "what."},
        ],
        "stop_reason": "refusal",
        "usage": _USAGE,
    }
    made = completion(message, now=lambda: 7.9)
    answer = made["choices"][0]["message"]
    assert (answer["content"], answer["reasoning_content"]) == ("So what.", "Hm.")
    assert "tool_calls" not in answer
    assert made["choices"][0]["finish_reason"] == "content_filter"
    assert made["created"] == 7
