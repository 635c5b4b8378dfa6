"""Measures the relay's overhead: the same stream, directly and through front end and relay.

    python -m benchmarks.relay [--streams N]

Each word of the server's response is the time at which it was sent, so the reader knows its age
when its bytes arrive; the reader's own work is not counted. Three ways alternate: direct, through
two processes that only pass bytes on (the least that a front end and a worker can cost on this
machine), and relayed; each with a server of either dialect. The prompt has the size of Claude
Code's. In an unpaced stream the server sends all words at once.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

from benchmarks.forwarding import forwarded
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_process import RelayProcess

PIECES = 100
PAUSE_SECONDS = 0.005
_PACED, _UNPACED = "paced", "unpaced"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}
_TOOLS = [
    {"name": f"Tool{i}", "description": "d" * 2700, "input_schema": {"type": "object"}}
    for i in range(25)
]
_OPENAI_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": tool["name"],
            "description": tool["description"],
            "parameters": tool["input_schema"],
        },
    }
    for tool in _TOOLS
]


@dataclass
class Samples:
    """Seconds."""

    first_byte: list[float] = field(default_factory=list)
    first_word: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    # Of whole unpaced streams.
    unpaced: list[float] = field(default_factory=list)


@dataclass
class Way:
    name: str
    base_url: str
    # The reader's dialect; the mode tells the relay which server to use.
    dialect: str
    mode: str = ""
    samples: Samples = field(default_factory=Samples)

    @property
    def address(self) -> str:
        return self.base_url.removeprefix("http://")

    def request(self, pace: str) -> bytes:
        """A request; the name of its model selects the server's pace."""
        asked = {"model": pace, "max_tokens": 500, "stream": True}
        messages = [{"role": "user", "content": "Hello."}]
        tools = _TOOLS if self.dialect == "anthropic" else _OPENAI_TOOLS
        body = json.dumps({**asked, "messages": messages, "tools": tools}).encode()
        head = [
            f"POST {_PATHS[self.dialect]} HTTP/1.1",
            f"host: {self.address}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        if self.mode:
            head.append(f"x-anyclaude-mode: {self.mode}")
        return "\r\n".join([*head, "", ""]).encode() + body


async def serve() -> None:
    """A server of both dialects whose words are the time; prints its port."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next((line for line in head.split("\r\n") if "content-length" in line), ":0")
            body = await reader.readexactly(int(length.partition(":")[2]))
            stream = _anthropic if f"post {_PATHS['anthropic']} " in head else _openai
            await stream(writer, is_paced=f'"{_UNPACED}"'.encode() not in body)
    writer.close()


async def _openai(writer: asyncio.StreamWriter, *, is_paced: bool) -> None:
    def send(delta: dict[str, str], reason: str | None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        _send(writer, f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n")

    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    writer.write(_HEAD)
    for _ in range(PIECES):
        send({"content": f"{time.monotonic_ns()} "}, None)
        if is_paced:
            await asyncio.sleep(PAUSE_SECONDS)
    send({}, "stop")
    _send(writer, "data: [DONE]\n\n")
    await _end(writer)


async def _anthropic(writer: asyncio.StreamWriter, *, is_paced: bool) -> None:
    def send(*events: dict[str, Any]) -> None:
        _send(writer, "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events))

    def word() -> dict[str, Any]:
        delta = {"type": "text_delta", "text": f"{time.monotonic_ns()} "}
        return {"type": "content_block_delta", "index": 0, "delta": delta}

    writer.write(_HEAD)
    usage = {"input_tokens": 18_490, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    block = {"type": "text", "text": ""}
    send(
        {"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        word(),
    )
    for _ in range(PIECES - 1):
        if is_paced:
            await asyncio.sleep(PAUSE_SECONDS)
        send(word())
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    send(
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": usage},
        {"type": "message_stop"},
    )
    await _end(writer)


def _send(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(f"{len(text):x}\r\n{text}\r\n".encode())


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"0\r\n\r\n")
    await writer.drain()


class _Reader(asyncio.Protocol):
    """A client connection that records when each word's bytes arrive (`time.monotonic_ns`)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> "asyncio.Future[None]":
        """Sends a request; the result is done at the end of the response."""
        self._parser = httptools.HttpResponseParser(self)
        self._lines = b""
        self.words: list[tuple[int, int]] = []
        self.first_byte = 0
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._ended

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        self.first_byte = self.first_byte or self._now
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(ConnectionError("it hung up"))

    def on_body(self, data: bytes) -> None:
        assert self._parser.get_status_code() == 200, data
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                sent = _words(json.loads(line.removeprefix(b"data: ")))
                self.words += [(self._now, int(word)) for word in sent.split()]

    def on_message_complete(self) -> None:
        self._ended.set_result(None)


def _words(event: dict[str, Any]) -> str:
    found = ""
    if "choices" in event:
        found = event["choices"][0]["delta"].get("content", "")
    elif event["type"] == "content_block_delta":
        found = event["delta"]["text"]
    return found


async def _read(reader: _Reader, way: Way, pace: str) -> None:
    request = way.request(pace)
    began = time.monotonic_ns()
    await reader.ask(request)
    ended = time.monotonic_ns()
    assert len(reader.words) == PIECES, f"{way.name}: {len(reader.words)} words"
    if pace == _PACED:
        way.samples.first_byte.append((reader.first_byte - began) / 1e9)
        way.samples.first_word.append((reader.words[0][0] - began) / 1e9)
        way.samples.ages += [(came - sent) / 1e9 for came, sent in reader.words]
    else:
        way.samples.unpaced.append((ended - began) / 1e9)


@contextlib.contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.relay", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


async def _measure(ways: list[Way], streams: int) -> None:
    readers = [(await _connect(way), way) for way in ways]
    for reader, way in readers:
        await _read(reader, way, _PACED)
        # The first round only warms up.
        way.samples = Samples()
    for pace in (_PACED, _UNPACED):
        for _ in range(streams):
            for reader, way in readers:
                await _read(reader, way, pace)


async def _connect(way: Way) -> _Reader:
    host, port = way.address.split(":")
    _, reader = await asyncio.get_running_loop().create_connection(_Reader, host, int(port))
    return reader


def _report(dialect: str, ways: list[Way]) -> None:
    head = ("direct", "passed on", "relayed", "added", "ratio", "over passed on")
    print(f"{dialect + ', median, ms':<30}" + "".join(f"{name:>16}" for name in head))
    for name, of in (
        ("to the first byte", lambda samples: samples.first_byte),
        ("to the first word", lambda samples: samples.first_word),
        ("age of a word", lambda samples: samples.ages),
        ("unpaced stream, per word", lambda samples: [one / PIECES for one in samples.unpaced]),
    ):
        a, b, c = (statistics.median(of(way.samples)) * 1e3 for way in ways)
        figures = (a, b, c, c - a, c / a, c - b)
        print(f"{name:<30}" + "".join(f"{figure:>16.3f}" for figure in figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20, help="of each kind")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
    with _server() as url, forwarded(url) as passing:
        models = {"models": {_PACED: _PACED, _UNPACED: _UNPACED}}
        upstreams = {
            dialect: {"kind": "other", "dialect": dialect, "base_url": url, **models}
            for dialect in _PATHS
        }
        with RelayProcess(upstreams, log_level="info") as relay, FrontendProcess() as frontend:
            routes = [route(relay.socket_path, mode=mode, relayed=True) for mode in upstreams]
            frontend.push(*routes, default_mode="openai")
            ways = {
                dialect: [
                    Way("direct", url, dialect),
                    Way("passed on", passing, dialect),
                    Way("relayed", frontend.base_url, "anthropic", mode=dialect),
                ]
                for dialect in _PATHS
            }
            asyncio.run(_measure([*itertools.chain(*ways.values())], arguments.streams))
            for dialect, measured in ways.items():
                _report(dialect, measured)


if __name__ == "__main__":
    main()
