"""The event stream parser: the standard's rules, and independence of chunks."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.relay import sse
from anyclaude.relay.sse import ServerEvent, SseParser, StreamTooLargeError


def parse(*chunks: bytes) -> list[ServerEvent]:
    parser = SseParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events + parser.finish()


LINES = st.sampled_from(
    [
        b"data: one",
        b"data:two",
        b"data:  three",
        b"data",
        b"data: \xe2\x80\xa8 \xf0\x9f\xa6\x8a",
        b"data: \xff",
        b"event: error",
        b": comment",
        b"id: 7",
        b"retry: 10",
        b"unknown",
        b"",
        b"",
        b'data: {"a": "b: c"}',
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@st.composite
def streams(draw) -> bytes:
    """Bytes of lines with any mix of line ends, with or without a byte order mark."""
    lines = draw(st.lists(st.tuples(LINES, ENDS), max_size=12))
    body = b"".join(line + end for line, end in lines)
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef"]))
    return mark + body + draw(st.sampled_from([b"", b"data: last", b"data: x\n"]))


@given(streams(), st.data())
def test_chunks_do_not_matter(stream, data):
    """However a stream is cut, it gives the same events."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*pieces) == parse(stream)


@given(streams())
def test_single_bytes_do_not_matter(stream):
    """A stream that arrives byte by byte gives the same events."""
    assert parse(*(bytes([byte]) for byte in stream)) == parse(stream)


@given(
    st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=1)
)
def test_line_ends_are_alike(texts):
    """LF, CR and CRLF end a line, and no other character does."""
    expected = [ServerEvent("", text) for text in texts]
    for end in ("\n", "\r", "\r\n"):
        stream = "".join(f"data: {text}{end}{end}" for text in texts).encode()
        assert parse(stream) == expected


def test_the_rules_of_the_standard():
    """The parser follows the standard's rules for names, data lines, spaces and comments."""
    stream = b": hi\nevent: a\ndata: 1\ndata:2\n\nevent: lost\n\ndata\n\nid: 3\ndata:  4\n\n"
    assert parse(stream) == [ServerEvent("a", "1\n2"), ServerEvent("", ""), ServerEvent("", " 4")]


def test_the_last_blank_line_may_be_missing():
    """The last event is read even if its closing blank line is missing."""
    assert parse(b"data: [DONE]") == [ServerEvent("", "[DONE]")]
    assert parse(b"data: [DONE]\n") == [ServerEvent("", "[DONE]")]


def test_a_mark_at_the_start_is_no_text():
    """A byte order mark does not hide the first field."""
    assert parse(b"\xef\xbb", b"\xbfdata: 1\n\n") == [ServerEvent("", "1")]


def test_a_long_line_takes_linear_time():
    """Five megabytes in small pieces are parsed in linear time."""
    line = b"data: " + b"x" * 5_000_000 + b"\n\n"
    begin = time.process_time()
    events = parse(*(line[i : i + 1000] for i in range(0, len(line), 1000)))
    assert len(events[0].data) == 5_000_000
    assert time.process_time() - begin < 5


def test_an_endless_event_is_refused(monkeypatch):
    """An event without an end is refused before it fills the memory."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    with pytest.raises(StreamTooLargeError):
        parse(*[b"data: 0123456789\n"] * 100)
