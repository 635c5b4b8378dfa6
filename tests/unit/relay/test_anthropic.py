"""The Anthropic dialect: requests in the form that local servers accept, events by the grammar."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.messages.requests import MessagesRequest, parse_messages_request
from anyclaude.relay.anthropic.dialect import AnthropicDialect
from anyclaude.relay.dialect import BrokenAnswerError, RefusedInStreamError, Target
from anyclaude.relay.quirks import IMAGES, Quirk, Quirks
from anyclaude.relay.sse import ServerEvent, SseParser
from anyclaude.runtime.upstreams import UpstreamSettings
from tests.integration.relay_process import fold
from tests.unit.relay.readers import message_reader

USAGE = {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 1}
START = {"type": "message_start", "message": {"type": "message", "content": [], "usage": USAGE}}
STOP = {"type": "message_stop"}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **piece: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": piece}


def end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def close(reason: str | None = "end_turn", **usage: int) -> dict[str, Any]:
    counts = {"output_tokens": 7, **usage}
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": counts}


TEXT = [begin(0, type="text", text=""), delta(0, type="text_delta", text="Hello"), end(0)]


def answer(*events: Any) -> dict[str, Any]:
    read = message_reader()
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        read.feed(ServerEvent("", data))
        if read.is_done:
            break
    read.finish()
    return fold(read.take())


def body(kind="lmstudio", quirks=Quirks(), **fields):  # noqa: B008
    raw = {
        "model": "claude",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "q"}],
        **fields,
    }
    text = json.dumps(raw).encode()
    settings = UpstreamSettings.model_validate({"kind": kind})
    target = Target(settings, "served", quirks)
    return AnthropicDialect().body(parse_messages_request(text), json.loads(text), target)


def test_an_answer():
    """A response with thinking, text and a call has its counts at the start and at the end."""
    message = answer(
        START,
        {"type": "ping"},
        begin(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="signature_delta", signature="theirs"),
        end(0),
        begin(1, type="tool_use", id="t1", name="Bash", input={}),
        delta(1, type="input_json_delta", partial_json='{"a"'),
        delta(1, type="input_json_delta", partial_json=": 1}"),
        end(1),
        close("tool_use"),
        STOP,
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "theirs"},
        {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"a": 1}},
    ]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {
        "input_tokens": 10,
        "cache_read_input_tokens": 90,
        "cache_creation_input_tokens": 0,
        "output_tokens": 7,
    }


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([START, *TEXT, end(0), close(), STOP, STOP], id="stops twice"),
        pytest.param([START, START, *TEXT, close(), STOP], id="starts twice"),
        pytest.param([START, *TEXT[:2], begin(1, type="text", text=""), end(1), close()],
                     id="no stop of a block, none of the message"),
        pytest.param([START, begin(0, type="text", text="Hello"), end(0), close(), STOP],
                     id="words in the start"),
        pytest.param([START, *TEXT, close(), "[DONE]"], id="the other dialect's end"),
        pytest.param([START, *TEXT, close("odd"), {"type": "new_kind"}, STOP], id="unknown"),
    ],
)  # fmt: skip
def test_mistakes_that_are_corrected(events):
    """Mistakes of servers whose meaning is clear are corrected."""
    message = answer(*events)
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert message["stop_reason"] == "end_turn"


def test_thoughts_sent_as_words_stay_thoughts():
    """Text deltas in a thinking block become thinking, and the block gets a signature."""
    message = answer(
        START,
        begin(0, type="thinking", thinking=""),
        delta(0, type="text_delta", text="hm"),
        end(0),
        close(),
        STOP,
    )
    assert message["content"][0]["thinking"] == "hm"
    assert message["content"][0]["signature"]


def test_input_that_comes_with_the_start():
    """A call's input is read whole from the block's start, as some servers send it."""
    message = answer(
        START,
        begin(0, type="tool_use", id="t1", name="Bash", input={"a": 1}),
        end(0),
        close("tool_use"),
        STOP,
    )
    assert message["content"][0]["input"] == {"a": 1}


@pytest.mark.parametrize(("max_tokens", "reason"), [(7, "max_tokens"), (8, "end_turn")])
def test_an_end_where_the_tokens_are_used_up_is_a_cut(max_tokens, reason):
    """end_turn after max_tokens tokens is reported as max_tokens."""
    read = message_reader(max_tokens=max_tokens)
    events = [START, *TEXT, close("end_turn"), STOP]
    for event in events:
        read.feed(ServerEvent("", json.dumps(event)))
    read.finish()
    assert fold(read.take())["stop_reason"] == reason


def test_missing_counts_are_estimated():
    """A message without counts gets estimates, since zeros would look like an empty window."""
    start = {"type": "message_start", "message": {"content": []}}
    assert answer(start, *TEXT, close(), STOP)["usage"]["input_tokens"] == 42


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing"),
        pytest.param([START, *TEXT], id="no end"),
        pytest.param([START, *TEXT[:2], STOP], id="no stop reason"),
        pytest.param([START, *TEXT[:2], close()], id="an open block"),
        pytest.param([*TEXT, close(), STOP], id="no start"),
        pytest.param([START, TEXT[1], close(), STOP], id="a delta of no block"),
        pytest.param([START, *TEXT, '{"type"'], id="cut JSON"),
        pytest.param(
            [START, begin(0, type="tool_use", id="t", name="Bash", input={}),
             delta(0, type="input_json_delta", partial_json='{"a"'), end(0), close(), STOP],
            id="cut input",
        ),
        pytest.param(
            [START, begin(0, type="tool_use", id="t", input={}), end(0), close("tool_use"), STOP],
            id="a call without a name",
        ),
    ],
)  # fmt: skip
def test_a_broken_answer_fails(events):
    """A response that breaks the grammar is an error and never a message."""
    with pytest.raises(BrokenAnswerError):
        answer(*events)


def test_an_error_event():
    """An error event ends the response with the server's own message and type."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    with pytest.raises(RefusedInStreamError, match="busy") as raised:
        answer(START, error)
    assert raised.value.details["type"] == "overloaded_error"


def test_a_whole_answer():
    """A response that is not streamed is read like a stream."""
    read = message_reader()
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"a": 1}}
    document = {
        "type": "message",
        "content": [{"type": "text", "text": "Hello"}, call],
        "stop_reason": "tool_use",
        "usage": USAGE,
    }
    read.whole(document)
    read.finish()
    message = fold(read.take())
    assert message["content"] == [{"type": "text", "text": "Hello"}, call]


@given(st.data())
def test_chunks_of_bytes_do_not_matter(data):
    """However a stream is cut into chunks, the message is the same."""
    thoughts = [delta(0, thinking="größe 🦊"), delta(0, signature="theirs")]
    thought = begin(0, type="thinking", thinking=""), *thoughts, end(0)
    words = begin(1, type="text", text=""), delta(1, text="a\u2028b"), end(1)
    pieces = [delta(2, partial_json=piece) for piece in ('{"a"', ': "é"', "}")]
    call = begin(2, type="tool_use", id="toolu_1", name="Bash", input={}), *pieces, end(2)
    events = [START, *thought, *words, *call, close("tool_use"), STOP]
    line_end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    stream = b"".join(
        f"event: {event['type']}{line_end}data: {written}{line_end}{line_end}".encode()
        for event in events
        for written in [json.dumps(event, ensure_ascii=False)]
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, read = SseParser(), message_reader()
    for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in parser.feed(stream[i:j]):
            read.feed(event)
    read.finish()
    message = fold(read.take())
    assert message == answer(*events)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2]["input"] == {"a": "é"}


def test_local_servers_get_only_what_they_know():
    """Local servers get their model's name, and no attribution or fields of the API alone."""
    sent = body(
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: v=1"},
            {"type": "text", "text": "You are."},
        ],
        context_management={"edits": []},
        thinking={"type": "adaptive"},
        unknown_field=1,
    )
    assert (sent["model"], sent["stream"]) == ("served", True)
    assert sent["system"] == [{"type": "text", "text": "You are."}]
    assert "context_management" not in sent
    assert sent["thinking"] == {"type": "adaptive"}
    assert sent["unknown_field"] == 1


_LETTER = {"type": "document", "source": {"type": "text", "data": "a letter"}}
_BEFORE = {"type": "text", "text": "before"}
_CALL = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}


def _text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


_FOR_FEW = {
    "document": (_LETTER, _text("a letter")),
    "server tool's call": ({"type": "server_tool_use", "id": "s", "name": "web_search"}, None),
    "server tool's result": (
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "web_search_result", "title": "T", "url": "https://x"}],
        },
        _text("T https://x"),
    ),
    "words of next year": ({"type": "poem", "text": "roses"}, _text("roses")),
    "a shape of next year": (
        {"type": "poem", "lines": 7},
        _text("[A block of type poem, which has no text.]"),
    ),
    "document in a result": (
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [_LETTER]},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [_text("a letter")]},
    ),
    "image": (
        {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
    ),
}


@pytest.mark.parametrize("kind", ["lmstudio", "llama-cpp", "vllm", "ollama", "other", "claude"])
@pytest.mark.parametrize(("block", "sent"), _FOR_FEW.values(), ids=_FOR_FEW)
def test_blocks_for_servers_that_know_few(kind, block, sent):
    """Servers known to refuse other blocks get text in their place; the others get them as sent."""
    told = body(
        kind,
        messages=[
            {"role": "assistant", "content": [_CALL]},
            {"role": "user", "content": [_BEFORE, block]},
        ],
    )
    expected = block if kind in ("other", "claude") else sent
    assert told["messages"][-1]["content"] == [_BEFORE, *([expected] if expected else [])]


@pytest.mark.parametrize(
    ("quirks", "kept"),
    [
        (Quirks(frozenset({Quirk.FEW_BLOCKS})), {"image"}),
        (Quirks(dropped=frozenset({IMAGES})), set()),
        (Quirks(), {"image", "document"}),
    ],
)
def test_blocks_that_a_server_refused(quirks, kept):
    """What another server was seen to refuse becomes text, in tool results too."""
    image = {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}
    document = {"type": "document", "source": {"type": "text", "data": "words"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [document, image]}
    turns = [{"role": "user", "content": [image, document, result]}]
    (turn,) = body("other", quirks, messages=turns)["messages"]
    *own, told = turn["content"]
    assert {block["type"] for block in own} - {"text"} == kept
    assert {block["type"] for block in told["content"]} - {"text"} == kept


def test_fields_of_tools_that_a_server_refused():
    """A field of a tool that was refused is left out of every tool."""
    tool = {"name": "t", "input_schema": {"type": "object"}, "input_examples": [], "strict": True}
    quirks = Quirks(dropped=frozenset({"input_examples"}))
    (sent,) = body("other", quirks, tools=[tool])["tools"]
    assert sent.keys() == tool.keys() - {"input_examples"}


def test_system_messages_stay_in_place_as_reminders():
    """System messages become user turns in place, which every server accepts."""
    turns = [
        {"role": "user", "content": "q"},
        {"role": "system", "content": "agents"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "q2", "odd": 1}]},
        {"role": "system", "content": [{"type": "text", "text": "plan"}]},
    ]
    sent = body(messages=turns, system="S")
    assert [block["text"] for block in sent["system"]] == ["S", "agents"]
    assert sent["messages"] == [
        turns[0],
        turns[2],
        turns[3],
        {"role": "user", "content": "<system-reminder>\nplan\n</system-reminder>"},
    ]


def test_messages_that_an_edit_left_out():
    """Each message keeps its own role and content when an edit left out one before it."""
    messages = [
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": [{"type": "text", "text": "Two."}], "x_mark": 1},
        {"role": "user", "content": "Three."},
    ]
    document = {"model": "m", "max_tokens": 1, "messages": messages}
    request = MessagesRequest.of({**document, "messages": messages[1:]})
    target = Target(UpstreamSettings(), "model", Quirks())
    assert AnthropicDialect().body(request, document, target)["messages"] == messages[1:]


def test_the_real_api_gets_everything():
    """A request to the real API is sent unchanged."""
    turns = [{"role": "user", "content": "q"}, {"role": "system", "content": "plan"}]
    billing = [{"type": "text", "text": "x-anthropic-billing-header: v=1"}]
    sent = body("claude", messages=turns, system=billing, context_management={"edits": []})
    assert (sent["messages"], sent["system"]) == (turns, billing)
    assert sent["context_management"] == {"edits": []}


def test_refused_fields_are_left_out():
    """A field that the server refused is not sent again."""
    quirks = Quirks(dropped=frozenset({"thinking"}))
    assert "thinking" not in body(quirks=quirks, thinking={"type": "adaptive"})
