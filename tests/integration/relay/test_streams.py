"""Streams of both dialects through front end and relay, as a client reads them over HTTP."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest

from tests.integration.relay_chain import TOOL, Chain
from tests.integration.scripted_upstream import (
    STREAM,
    Pause,
    Reset,
    Script,
    Step,
    chunk,
    event,
    messages_server,
    openai_server,
)

WAIT_SECONDS = 30
LONG_BYTES = 5_000_000


@dataclass(frozen=True)
class Dialect:
    """The pieces of a stream in one dialect."""

    name: str

    def server(self, steps: Sequence[Step]) -> Script:
        serve = openai_server if self.name == "openai" else messages_server
        return serve(lambda _: steps)

    def begin(self) -> bytes:
        if self.name == "openai":
            return chunk(role="assistant", content="")
        message = {"type": "message", "content": [], "usage": {"input_tokens": 5}}
        return named({"type": "message_start", "message": message}) + named(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}
        )

    def word(self, text: str) -> bytes:
        if self.name == "openai":
            return chunk(content=text)
        delta = {"type": "text_delta", "text": text}
        return named({"type": "content_block_delta", "index": 0, "delta": delta})

    def begin_call(self) -> bytes:
        if self.name == "openai":
            return chunk(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "Bash"}}])
        block = {"type": "tool_use", "id": "call_1", "name": "Bash", "input": {}}
        return named({"type": "content_block_stop", "index": 0}) + named(
            {"type": "content_block_start", "index": 1, "content_block": block}
        )

    def arguments(self, text: str) -> bytes:
        if self.name == "openai":
            return chunk(tool_calls=[{"index": 0, "function": {"arguments": text}}])
        delta = {"type": "input_json_delta", "partial_json": text}
        return named({"type": "content_block_delta", "index": 1, "delta": delta})

    def end(self) -> bytes:
        if self.name == "openai":
            return chunk("stop") + event("[DONE]")
        delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
        return (
            named({"type": "content_block_stop", "index": 0})
            + named({**delta, "usage": {"output_tokens": 2}})
            + named({"type": "message_stop"})
        )


def named(told: dict[str, object]) -> bytes:
    return event(told, str(told["type"]))


class Served:
    """A chain of one dialect, whose server sends the steps that the running test sets."""

    def __init__(self, dialect: Dialect, chain: Chain, http: httpx.Client) -> None:
        self.dialect = dialect
        self._chain = chain
        self._http = http

    @contextlib.contextmanager
    def stream(self, *steps: Step) -> Iterator[httpx.Response]:
        self._chain.upstream.script = self.dialect.server(steps)
        body = {
            "model": "claude-x",
            "max_tokens": 100,
            "stream": True,
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [TOOL],
        }
        url = f"{self._chain.frontend.base_url}/v1/messages"
        with self._http.stream("POST", url, json=body) as response:
            yield response


@pytest.fixture(scope="module", params=["openai", "anthropic"])
def served(request) -> Iterator[Served]:
    dialect = Dialect(request.param)
    with (
        # Many of these requests fail in a row.
        Chain(dialect.server([]), dialect.name, breaker_failures=1000) as chain,
        httpx.Client(trust_env=False, timeout=WAIT_SECONDS) as http,
    ):
        yield Served(dialect, chain, http)


@pytest.fixture
def dialect(served) -> Dialect:
    return served.dialect


def events(response: httpx.Response) -> Iterator[dict]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            told = json.loads(line.removeprefix("data: "))
            if told["type"] != "ping":
                yield told


def text_of(told: list[dict]) -> str:
    deltas = [one["delta"] for one in told if one["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas)


def test_the_first_words_leave_before_the_next_come(served, dialect):
    """The client has the first text before the server sends the second."""
    go_on = threading.Event()
    steps = [STREAM, dialect.begin(), dialect.word("first"), Pause(go_on), dialect.word(" second")]
    with served.stream(*steps, dialect.end()) as response:
        told = events(response)
        begun = [next(told) for _ in range(3)]
        assert begun[2]["delta"] == {"type": "text_delta", "text": "first"}
        go_on.set()
        rest = list(told)
        assert text_of(rest) == " second"
        assert rest[-1]["type"] == "message_stop"


def test_arguments_leave_as_they_come(served, dialect):
    """Pieces of a call's arguments are passed on before the arguments are complete."""
    go_on = threading.Event()
    steps = [
        *(STREAM, dialect.begin(), dialect.word("I look."), dialect.begin_call()),
        *(dialect.arguments('{"command": "l'), Pause(go_on), dialect.arguments('s"}')),
    ]
    with served.stream(*steps, dialect.end()) as response:
        pieces = (
            one["delta"]["partial_json"]
            for one in events(response)
            if one["type"] == "content_block_delta" and one["delta"]["type"] == "input_json_delta"
        )
        first = next(piece for piece in pieces if piece)
        assert first.startswith("{")
        go_on.set()
        assert json.loads(first + "".join(pieces)) == {"command": "ls"}


UNKNOWN = event({"type": "news", "what": "nothing"}, "news")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: [bytes([byte]) for byte in s], id="every byte alone"),
        pytest.param(lambda s: [s.replace(b"\n", b"\r\n")], id="CRLF"),
        pytest.param(lambda s: [s.replace(b"\n\n", b"\r\n\n")], id="CRLF and LF"),
        pytest.param(lambda s: [s.replace(b"\n", b"\r")], id="CR"),
        pytest.param(lambda s: [s.removesuffix(b"\n\n")], id="no final blank line"),
        pytest.param(lambda s: [b"\xef\xbb\xbf" + s], id="byte order mark"),
        pytest.param(lambda s: [b": hello\n\n" + s.replace(b"\n\n", b"\n:\n\n")], id="comments"),
        pytest.param(lambda s: [UNKNOWN + s.replace(b"\n\n", b"\n\n" + UNKNOWN)], id="unknown"),
    ],
)
def test_however_a_stream_is_written(served, dialect, change):
    """Line cuts and other lines between events do not change the response."""
    words = ["größe", " 🦊\u2028", "."]
    stream = dialect.begin() + b"".join(map(dialect.word, words)) + dialect.end()
    with served.stream(STREAM, *change(stream)) as response:
        told = list(events(response))
    assert text_of(told) == "".join(words)
    assert [one["type"] for one in told[-2:]] == ["message_delta", "message_stop"]


def test_one_line_of_five_megabytes(served, dialect):
    """A line of five megabytes passes whole."""
    words = "x" * LONG_BYTES
    with served.stream(STREAM, dialect.begin(), dialect.word(words), dialect.end()) as response:
        told = list(events(response))
    assert text_of(told) == words
    assert told[-1]["type"] == "message_stop"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param([], id="no end"),
        pytest.param([Reset()], id="reset"),
        pytest.param([b'data: {"choices": [{"del\n\n'], id="cut JSON"),
        pytest.param([b'data: {"type": "content_bl'], id="cut in a line"),
        pytest.param([b": still here\n\n: still here\n\n"], id="comments, then nothing"),
        pytest.param([event(["a list"])], id="not an object"),
        pytest.param([event({"error": {"message": "boom"}}, "error")], id="error event"),
    ],
)
def test_a_broken_stream_ends_in_an_error_event(served, dialect, broken):
    """The connection is closed in order after the error, and the message never looks complete."""
    with served.stream(STREAM, dialect.begin(), dialect.word("a"), *broken) as response:
        told = list(events(response))
    assert text_of(told) == "a"
    assert told[-1]["type"] == "error"
    assert not {"message_delta", "message_stop"} & {one["type"] for one in told}


@pytest.mark.parametrize("steps", [[], [b": only\n\n: comments\n\n"], [UNKNOWN]])
def test_a_stream_of_nothing_is_a_status(served, steps):
    """A failure before the first content is an HTTP error, not an event."""
    with served.stream(STREAM, *steps) as response:
        assert response.status_code == 500
        assert json.loads(response.read())["error"]["type"] == "api_error"
