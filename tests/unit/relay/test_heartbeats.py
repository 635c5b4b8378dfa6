"""Events that say nothing are passed over in either dialect, and errors in plain words are not."""

import pytest

from anyclaude.relay.dialect import BrokenAnswerError, RefusedInStreamError
from anyclaude.relay.sse import SseParser
from tests.integration.relay_process import fold
from tests.unit.relay.readers import chat_reader, message_reader

CHAT = [
    b'data: {"choices": [{"delta": {"role": "assistant", "content": "fi"}}]}\n\n',
    b'data: {"choices": [{"delta": {"content": "ne"}}]}\n\n',
    b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n',
    b"data: [DONE]\n\n",
]
MESSAGE = [
    b'event: message_start\ndata: {"type": "message_start", "message": {"usage": {}}}\n\n',
    b'data: {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}\n\n',
    b'data: {"type": "content_block_delta", "index": 0, "delta": {"text": "fine"}}\n\n',
    b'data: {"type": "content_block_stop", "index": 0}\n\n',
    b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}\n\n',
    b'data: {"type": "message_stop"}\n\n',
]
BEATS = [
    b"data: \n\n",
    b"data:\n\n",
    b"data\n\n",
    b"event: ping\ndata: \n\n",
    b"event: keepalive\ndata: {}\n\n",
    b'event: heartbeat\ndata: {"time": 1}\n\n',
    b": OPENROUTER PROCESSING\n\n",
    b":\n\n",
    b"retry: 3000\n\n",
    b"id: 7\n\n",
    b"event: ping\ndata: ping\n\n",
    b"data: ping\n\n",
    b"data: : keepalive\n\n",
    b"data: [PING]\n\n",
    b"data: null\n\n",
    b"data: {}\n\n",
    b'data: {"choices": []}\n\n',
    b'data: {"type": "ping"}\n\n',
    b"\n\n\n",
    b"\r\n",
]


def readers():
    return [
        (chat_reader(), CHAT),
        (message_reader(), MESSAGE),
    ]


def read(reader, stream):
    parser = SseParser()
    for event in [*parser.feed(stream), *parser.finish()]:
        reader.feed(event)
    reader.finish()
    return fold(reader.take())


@pytest.mark.parametrize("beat", BEATS, ids=repr)
def test_heartbeats(beat):
    """A heartbeat at any place of a stream changes nothing."""
    for reader, pieces in readers():
        message = read(reader, beat + beat.join(pieces) + beat)
        assert message["content"] == [{"type": "text", "text": "fine"}]
        assert message["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b"event: error\ndata: the model crashed\n\n", "the model crashed"),
        (
            b'error: {"code": 400, "message": "too big", "type": "invalid_request_error"}\n\n',
            "too big",
        ),
        (b'event: error\ndata: {"error": {"message": "busy"}}\n\n', "busy"),
        (b'data: {"error": "out of memory"}\n\n', "out of memory"),
        (b'event: ping\ndata: {"error": {"message": "gone"}}\n\n', "gone"),
        (
            b'data: {"type": "error", "error": {"type": "x_error", "message": "later"}}\n\n',
            "later",
        ),
    ],
)
def test_errors(event, words):
    """An error is one in whatever form it comes."""
    for reader, pieces in readers():
        with pytest.raises(RefusedInStreamError, match=words):
            read(reader, b"".join(pieces[:2]) + event)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b" \n", b"\n: beat\n"])
def test_events_without_blank_lines(end):
    """Events that a server does not separate by blank lines are events of their own."""
    for reader, pieces in readers():
        stream = b"".join(piece.replace(b"\n\n", end) for piece in pieces)
        assert read(reader, stream)["content"] == [{"type": "text", "text": "fine"}]


@pytest.mark.parametrize(
    "cut",
    [
        b'data: {"choices": [\n\n',
        b'data: {"type"\n\n',
        b"data: []\n\n",
        b'data: "text"\n\n',
        b'data: {"a": 1} {"b": 2}\n\n',
    ],
)
def test_cut_json_is_no_heartbeat(cut):
    """A piece of JSON that cannot be read may have held a word, so the answer fails."""
    for reader, pieces in readers():
        with pytest.raises(BrokenAnswerError):
            read(reader, pieces[0] + cut + b"".join(pieces[1:]))
