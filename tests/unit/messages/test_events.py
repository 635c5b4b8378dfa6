"""The stream grammar: which events are sent, in which order, and how broken responses end."""

import json
from typing import Any

import anthropic.types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from anyclaude.messages.accumulator import MessageAccumulator
from anyclaude.messages.errors import ApiError
from anyclaude.messages.events import Event, EventMachine, GrammarError, new_message_id
from anyclaude.messages.hidden_thinking import hidden, revealed
from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say

STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)
MESSAGE: TypeAdapter[Any] = TypeAdapter(anthropic.types.Message)


def machine() -> EventMachine:
    return EventMachine("msg_1", "claude-x")


def run(*events: worker.GenerateResponse) -> list[Event]:
    made = machine()
    return [message for event in events for message in made.feed(event)]


def whole(events: list[Event]) -> dict[str, Any]:
    accumulator = MessageAccumulator()
    for event in events:
        accumulator.add(event)
    return accumulator.message()


def kinds(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


THINKING_AND_TOOL = (
    say.started(),
    say.progress(),
    say.thinking_start(0),
    say.delta(0, thinking="Let me "),
    say.delta(0, thinking="see"),
    say.delta(0, signature="sig"),
    say.stop(0),
    say.text_start(1),
    say.delta(1, text="I look."),
    say.stop(1),
    say.tool_start(2, "toolu_1"),
    say.delta(2, partial_json='{"command":'),
    say.delta(2, partial_json='"ls"}'),
    say.stop(2),
    say.tool_start(3, "toolu_2"),
    say.stop(3),
    say.finished(worker.STOP_REASON_TOOL_USE),
)


def test_every_event_has_the_official_shape() -> None:
    """Each event of a response with all kinds of blocks is valid for the official client."""
    for event in run(*THINKING_AND_TOOL):
        STREAM_EVENT.validate_python(event)


def test_order_of_a_full_answer() -> None:
    """Blocks are numbered without gaps, and the message ends in delta and stop."""
    events = run(*THINKING_AND_TOOL)
    starts = [e for e in events if e["type"] == "content_block_start"]
    assert [e["index"] for e in starts] == [0, 1, 2, 3]
    assert kinds(events)[0] == "message_start"
    assert kinds(events)[-2:] == ["message_delta", "message_stop"]


def test_accumulated_message_holds_the_streamed_content() -> None:
    """The non-streaming message has the content of the stream."""
    message = whole(run(*THINKING_AND_TOOL))
    MESSAGE.validate_python(message)
    assert message["content"] == [
        {"type": "thinking", "thinking": "Let me see", "signature": "sig"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
        {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {}},
    ]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["output_tokens"] == 5


def test_usage_is_the_workers() -> None:
    """message_start carries the counts of Started, message_delta the final ones."""
    events = run(say.started(), say.finished(output_tokens=7))
    assert events[0]["message"]["usage"] == {
        "input_tokens": 1,
        "cache_read_input_tokens": 90,
        "cache_creation_input_tokens": 9,
        "output_tokens": 0,
    }
    assert events[1]["usage"]["output_tokens"] == 7


def test_warm_up_has_no_content() -> None:
    """A request of max_tokens 0 ends with an empty message."""
    message = whole(run(say.started(), say.finished(worker.STOP_REASON_MAX_TOKENS)))
    assert message["content"] == []
    assert message["stop_reason"] == "max_tokens"


def test_empty_blocks_are_not_announced() -> None:
    """A text block without text leaves no trace and no gap in the numbering."""
    events = run(
        say.started(),
        say.text_start(0),
        say.delta(0, text=""),
        say.stop(0),
        say.tool_start(1),
        say.stop(1),
        say.finished(worker.STOP_REASON_TOOL_USE),
    )
    starts = [e for e in events if e["type"] == "content_block_start"]
    assert [(e["index"], e["content_block"]["type"]) for e in starts] == [(0, "tool_use")]


@pytest.mark.parametrize(
    ("blocks", "said", "sent"),
    [
        ([], worker.STOP_REASON_TOOL_USE, "end_turn"),
        ([say.tool_start(0), say.stop(0)], worker.STOP_REASON_END_TURN, "tool_use"),
        ([say.tool_start(0), say.stop(0)], worker.STOP_REASON_MAX_TOKENS, "max_tokens"),
    ],
)
def test_stop_reason_follows_the_blocks(
    blocks: list[worker.GenerateResponse], said: worker.StopReason, sent: str
) -> None:
    """The stop reason is tool_use exactly when a tool is to be run."""
    events = run(say.started(), *blocks, say.finished(said))
    assert events[-2]["delta"]["stop_reason"] == sent


def test_stop_sequence_is_named() -> None:
    """The matched sequence comes with its stop reason."""
    end = say.finished(worker.STOP_REASON_STOP_SEQUENCE, stop_sequence="</block>")
    events = run(say.started(), end)
    assert events[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "</block>"}


@pytest.mark.parametrize(
    "events",
    [
        [say.text_start()],
        [say.finished()],
        [say.started(), say.started()],
        [say.started(), say.delta(text="x")],
        [say.started(), say.stop()],
        [say.started(), say.text_start(1)],
        [say.started(), say.text_start(), say.text_start(1)],
        [say.started(), say.text_start(), say.delta(1, text="x")],
        [say.started(), say.text_start(), say.delta(thinking="x")],
        [say.started(), say.thinking_start(), say.delta(text="x")],
        [
            say.started(),
            say.thinking_start(),
            say.delta(signature="s"),
            say.delta(thinking="x"),
        ],
        [say.started(), say.text_start(), say.finished()],
        [say.started(), say.tool_start(tool_id="")],
        [say.started(), say.tool_start(name="")],
        [say.started(), say.tool_start(), say.stop(), say.tool_start(1)],
        [say.started(), say.tool_start(), say.delta(partial_json="{"), say.stop()],
        [say.started(), say.tool_start(), say.delta(partial_json="[]"), say.stop()],
        [say.started(), say.tool_start(), say.delta(partial_json='{"a":NaN}'), say.stop()],
        [say.started(), say.finished(worker.STOP_REASON_UNSPECIFIED)],
        [say.started(), say.finished(worker.STOP_REASON_STOP_SEQUENCE)],
        [say.started(), say.finished(), say.progress()],
        [say.started(), worker.GenerateResponse()],
    ],
)
def test_misplaced_events_are_refused(events: list[worker.GenerateResponse]) -> None:
    """An event that does not fit raises, and nothing of it is sent."""
    made = machine()
    for event in events[:-1]:
        made.feed(event)
    with pytest.raises(GrammarError):
        made.feed(events[-1])


def test_message_ids_are_unique() -> None:
    """Ids are long, random and never repeat."""
    ids = {new_message_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(i) >= len("msg_") + 24 for i in ids)


INDEX = st.integers(0, 3)
TEXT = st.sampled_from(["", "a", "{", "}", '{"a":1}'])
ANY_EVENT = st.one_of(
    st.just(say.started()),
    st.just(say.progress()),
    INDEX.map(say.text_start),
    INDEX.map(say.thinking_start),
    st.builds(say.tool_start, INDEX, st.sampled_from(["", "t1", "t2"]), st.just("Bash")),
    st.builds(
        lambda index, kind, text: say.delta(index, **{kind: text}),
        INDEX,
        st.sampled_from(["text", "thinking", "signature", "partial_json"]),
        TEXT,
    ),
    INDEX.map(say.stop),
    st.sampled_from(
        [
            worker.STOP_REASON_UNSPECIFIED,
            worker.STOP_REASON_END_TURN,
            worker.STOP_REASON_TOOL_USE,
            worker.STOP_REASON_MAX_TOKENS,
            worker.STOP_REASON_STOP_SEQUENCE,
        ]
    ).map(say.finished),
)


@st.composite
def mostly_right(draw: st.DrawFn) -> list[worker.GenerateResponse]:
    """A valid response with a few events removed, repeated or added, to reach deep states."""
    events = list(THINKING_AND_TOOL)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(events)))
        if draw(st.booleans()) and at < len(events):
            del events[at]
        else:
            events.insert(at, draw(ANY_EVENT))
    return events


@settings(deadline=None)
@given(st.one_of(st.lists(ANY_EVENT, max_size=12), mostly_right()))
def test_no_order_of_events_makes_a_wrong_stream(events: list[worker.GenerateResponse]) -> None:
    """Any order of worker events gives a stream of the grammar or one that ends in an error."""
    made = machine()
    sent: list[Event] = []
    for event in events:
        try:
            sent += made.feed(event)
        except GrammarError as error:
            sent.append(ApiError(500, str(error)).envelope("req_1"))
            break
        if made.ended:
            break
    check_sentence(sent, complete=made.ended)


def check_sentence(events: list[Event], *, complete: bool) -> None:
    """An independent check of the grammar."""
    if complete:
        assert kinds(events)[-1] in ("message_stop", "error")
    if events and events[-1]["type"] == "error":
        events = events[:-1]
        complete = False
    opened: str | None = None
    pieces: list[str] = []
    indices: list[int] = []
    ids: list[str] = []
    for position, event in enumerate(events):
        STREAM_EVENT.validate_python(event)
        kind = event["type"]
        assert (kind == "message_start") == (position == 0)
        if kind == "content_block_start":
            assert opened is None
            opened = event["content_block"]["type"]
            pieces = []
            indices.append(event["index"])
            ids += [event["content_block"]["id"]] if opened == "tool_use" else []
        elif kind == "content_block_delta":
            assert event["index"] == indices[-1]
            wanted = {
                "text": ["text_delta"],
                "thinking": ["thinking_delta", "signature_delta"],
                "tool_use": ["input_json_delta"],
            }
            assert opened is not None
            assert event["delta"]["type"] in wanted[opened]
            pieces.append(event["delta"].get("partial_json", ""))
        elif kind == "content_block_stop":
            assert opened is not None
            assert event["index"] == indices[-1]
            if opened == "tool_use":
                assert isinstance(json.loads("".join(pieces)), dict)
            opened = None
        elif kind == "message_delta":
            # A call that was cut has no end, so that no client runs half of it.
            cut = event["delta"]["stop_reason"] in ("max_tokens", "model_context_window_exceeded")
            assert opened is None or (opened == "tool_use" and cut)
            opened = None
            assert position == len(events) - 2
            assert (event["delta"]["stop_reason"] == "tool_use") <= bool(ids)
        elif kind == "message_stop":
            assert position == len(events) - 1
    assert indices == list(range(len(indices)))
    assert len(ids) == len(set(ids))
    if complete:
        assert opened is None


@pytest.mark.parametrize(
    ("pieces", "arrived"),
    [
        ((), {}),
        (('{"comm',), {}),
        (('{"command": "ls', " -l"), {}),
        (('{"command": "ls", "path": "/t',), {"command": "ls"}),
        (('{"lines": [1, 2, ', "3"), {"lines": [1, 2, 3]}),
        (('{"a": {"b": 1, "c',), {"a": {"b": 1}}),
    ],
    ids=["nothing", "in a name", "in the first argument", "in the second", "in a list", "nested"],
)
def test_a_cut_call_shows_what_arrived(pieces: tuple[str, ...], arrived: dict[str, Any]) -> None:
    """A call that max_tokens cut keeps the text before it; whole and streamed it is the same."""
    text = (say.text_start(0), say.delta(0, text="I look."), say.stop(0))
    call = (say.tool_start(1), *(say.delta(1, partial_json=piece) for piece in pieces))
    events = run(say.started(), *text, *call, say.finished(worker.STOP_REASON_MAX_TOKENS))
    streamed = [e["delta"]["partial_json"] for e in events if "partial_json" in e.get("delta", {})]
    assert tuple(streamed) == pieces
    assert kinds(events).count("content_block_stop") == 1
    message = whole(events)
    MESSAGE.validate_python(message)
    assert message["stop_reason"] == "max_tokens"
    assert message["content"][0]["text"] == "I look."
    assert message["content"][1]["name"] == "Bash"
    assert message["content"][1]["input"] == arrived


@pytest.mark.parametrize("signature", ["", "theirs"], ids=["unsigned", "signed"])
@pytest.mark.parametrize("thinking", ["Hm.", "é\u2028 " * 1000, ""], ids=["short", "long", "none"])
def test_omitted_thinking_comes_back(thinking: str, signature: str) -> None:
    """Thinking that the client does not want is not sent, and is there again in the next turn."""
    made = EventMachine("msg_1", "claude-x", hides_thinking=True)
    signed = signature or "ours"
    script = [say.started(), say.thinking_start(0)]
    script += [say.delta(0, thinking=piece) for piece in (thinking[:7], thinking[7:]) if piece]
    script += [say.delta(0, signature=signed), say.stop(0), say.finished()]
    events = [message for event in script for message in made.feed(event)]
    deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    assert [delta["type"] for delta in deltas] == ["signature_delta"]
    for event in events:
        STREAM_EVENT.validate_python(event)
    [block] = whole(events)["content"]
    assert block["thinking"] == ""
    turns = [("user", "hi"), ("assistant", [block]), ("user", "on")]
    messages = [{"role": role, "content": content} for role, content in turns]
    again = MessagesRequest.of({"model": "m", "max_tokens": 1, "messages": messages})
    assert again.messages[1].blocks() == [
        {"type": "thinking", "thinking": thinking, "signature": signed}
    ]


def test_long_omitted_thinking_shows_that_it_goes_on() -> None:
    """A client that watches for events gets one now and then, without a word of the thinking."""
    made = EventMachine("msg_1", "claude-x", hides_thinking=True)
    script = [say.started(), say.thinking_start(0), *[say.delta(0, thinking="hm ")] * 1000]
    deltas = [
        event["delta"]
        for given in script
        for event in made.feed(given)
        if event["type"] == "content_block_delta"
    ]
    assert deltas == [{"type": "thinking_delta", "thinking": ""}] * 10


@pytest.mark.parametrize(
    "signature",
    [
        "anyclaude-hidden-",
        "anyclaude-hidden-!!!",
        "anyclaude-hidden-AAAA",
        hidden("thought", "own")[:-8],
        "EqQBCgIYAhIM",
    ],
)
def test_signatures_that_carry_nothing_stay(signature: str) -> None:
    """A signature that a client changed, or another server made, changes no block."""
    block = {"type": "thinking", "thinking": "", "signature": signature}
    assert revealed(block) == block
