"""The conformance suite's own checks: what they accept and what they refuse."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conformance.compare import page
from tests.conformance.grammar import check
from tests.conformance.report import Outcome, Result, Run, single_table
from tests.conformance.rows import Row
from tests.conformance.sse import Frame, parse

Event = dict[str, Any]
USAGE: Event = {"input_tokens": 5, "output_tokens": 0}


def start(**changes: Any) -> Event:
    message: Event = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE,
    }
    return {"type": "message_start", "message": message | changes}


def begin(index: int = 0, **block: Any) -> Event:
    content = block or {"type": "text", "text": ""}
    return {"type": "content_block_start", "index": index, "content_block": content}


def tool(index: int = 0, tool_id: str = "toolu_1") -> Event:
    return begin(index, type="tool_use", id=tool_id, name="Bash", input={})


def delta(index: int = 0, **piece: Any) -> Event:
    content = piece or {"type": "text_delta", "text": "x"}
    return {"type": "content_block_delta", "index": index, "delta": content}


def json_delta(written: str, index: int = 0) -> Event:
    return delta(index, type="input_json_delta", partial_json=written)


def end(index: int = 0) -> Event:
    return {"type": "content_block_stop", "index": index}


def final(reason: str = "end_turn", **usage: Any) -> Event:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": 3, **usage},
    }


STOP: Event = {"type": "message_stop"}
PING: Event = {"type": "ping"}
ERROR: Event = {"type": "error", "error": {"type": "api_error", "message": "gone"}}


def test_good_stream() -> None:
    """A stream of all kinds of blocks is accepted, with pings anywhere."""
    message = check(
        [
            PING,
            start(),
            begin(0, type="thinking", thinking="", signature=""),
            delta(0, type="thinking_delta", thinking="hm"),
            delta(0, type="signature_delta", signature="s"),
            end(0),
            begin(1),
            PING,
            delta(1),
            delta(1),
            end(1),
            tool(2),
            json_delta('{"command": ', 2),
            json_delta('"ls"}', 2),
            end(2),
            final("tool_use"),
            STOP,
        ]
    )
    assert message.text == "xx"
    assert message.content[0] == {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert message.content[2]["input"] == {"command": "ls"}
    assert (message.stop_reason, message.usage["output_tokens"], message.pings) == (
        "tool_use",
        3,
        2,
    )


def test_failed_stream() -> None:
    """An error event may end a stream at any place."""
    message = check([start(), begin(), delta(), ERROR])
    assert message.error == ERROR["error"]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [start(), final()],
        [begin(), delta(), end(), final(), STOP],
        [start(), start(), final(), STOP],
        [start(), begin(1), delta(1), end(1), final(), STOP],
        [start(), begin(), begin(1), delta(1), end(1), end(), final(), STOP],
        [start(), begin(), end(), final(), STOP],
        [start(), begin(), delta(), final(), STOP],
        [start(), begin(), delta(), end(), end(), final(), STOP],
        [start(), delta(), final(), STOP],
        [start(), begin(), json_delta("{}"), end(), final(), STOP],
        [start(), tool(), json_delta("{"), end(), final("tool_use"), STOP],
        [start(), tool(), json_delta("[]"), end(), final("tool_use"), STOP],
        [start(), tool(), json_delta("{}"), end(), final("end_turn"), STOP],
        [start(), final("tool_use"), STOP],
        [
            *(start(), tool(), json_delta("{}"), end()),
            *(tool(1), json_delta("{}", 1), end(1), final("tool_use"), STOP),
        ],
        [start(), final(), STOP, PING],
        [start(), ERROR, STOP],
        [start(), STOP],
    ],
    ids=[
        *("nothing", "no stop", "no start", "two starts", "gap", "interleaved", "no delta"),
        *("not closed", "closed twice", "no block", "wrong delta", "cut input", "input is a list"),
        *("call without reason", "reason without call", "one id twice", "after the end"),
        *("after an error", "no message_delta"),
    ],
)
def test_bad_stream(events: list[Event]) -> None:
    """Every violation of the grammar is refused."""
    with pytest.raises((AssertionError, json.JSONDecodeError)):
        check(events)


@pytest.mark.parametrize(
    "event",
    [
        start(usage=None),
        final("because"),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        begin(0, type="text"),
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}},
        {"type": "surprise"},
    ],
    ids=["no usage", "reason", "no final usage", "no text", "no delta text", "unknown"],
)
def test_wrong_types(event: Event) -> None:
    """Values that the official client's types do not have are refused."""
    before = [] if event["type"] == "message_start" else [start()]
    with pytest.raises((ValidationError, AssertionError)):
        check([*before, event])


def test_frames_in_any_pieces() -> None:
    """A stream reads the same in single bytes, comments and other line ends included."""
    raw = b': hello\n\nevent: ping\r\ndata: {"type":\r\ndata: "ping"}\r\n\r\n'
    assert parse([raw]) == parse(raw[i : i + 1] for i in range(len(raw)))
    assert parse([raw]) == [Frame("ping", '{"type":\n"ping"}')]


def test_unfinished_frame() -> None:
    """A stream that ends inside a frame is refused."""
    with pytest.raises(AssertionError):
        parse([b"event: ping\ndata: {}\n"])


def test_misnamed_frame() -> None:
    """A frame named other than its event is refused."""
    with pytest.raises(AssertionError):
        _ = Frame("ping", '{"type": "error"}').event


def test_table_and_comparison() -> None:
    """Written results can be read back, and a case that fails somewhere is listed."""
    results = (
        Result(Row.MODEL, "Any | model", Outcome.PASS),
        Result(Row.MODEL, "Another", Outcome.FAIL, "AssertionError: 1 | 2"),
        Result(Row.PING, "Silence", Outcome.NOT_APPLICABLE, "too quick"),
    )
    run = Run("some server 1.0", "2026-01-02", results)
    assert Run.from_json(run.to_json()) == run
    assert "| model | Any \\| model | pass |  |" in single_table(run)
    told = page([run])
    assert "| model | **1 of 2** |" in told
    assert "| ping, flush | n/a |" in told
    assert "| model | Another | FAIL: AssertionError: 1 \\| 2 |" in told
