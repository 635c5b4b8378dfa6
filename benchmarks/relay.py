"""What the relay adds: one stream read from a server directly, and through front end and relay.

    python -m benchmarks.relay [--streams N]

Each piece of the server's answer is the moment at which it was sent, so every reader knows how old
it is. Three ways take turns: direct, through two processes that only pass bytes on (the least that
a front end and a worker can cost on the machine at hand), and relayed. The prompt has the size of
Claude Code's. In an unpaced stream the server sends all words at once.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx

from benchmarks.forwarding import forwarded
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_process import RelayProcess

PIECES = 100
PAUSE_SECONDS = 0.005
_PACED, _UNPACED = "paced", "unpaced"
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

    first: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    # Of whole unpaced streams.
    unpaced: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Way:
    name: str
    url: str
    is_relayed: bool
    samples: Samples = field(default_factory=Samples)

    def body(self, pace: str) -> bytes:
        """The model's name tells the server how to send."""
        asked = {"model": pace, "max_tokens": 500, "stream": True}
        messages = [{"role": "user", "content": "Hello."}]
        tools = _TOOLS if self.is_relayed else _OPENAI_TOOLS
        return json.dumps({**asked, "messages": messages, "tools": tools}).encode()


async def serve() -> None:
    """An OpenAI server whose words are the time; prints its port."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next((line for line in head.split("\r\n") if "content-length" in line), ":0")
            body = await reader.readexactly(int(length.partition(":")[2]))
            await _stream(writer, is_paced=f'"{_UNPACED}"'.encode() not in body)
    writer.close()


async def _stream(writer: asyncio.StreamWriter, *, is_paced: bool) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for _ in range(PIECES):
        _send(writer, {"content": f"{time.monotonic_ns()} "}, None)
        if is_paced:
            await asyncio.sleep(PAUSE_SECONDS)
    _send(writer, {}, "stop")
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()


def _send(writer: asyncio.StreamWriter, delta: dict[str, str], reason: str | None) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    data = f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


async def _words(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line.removeprefix("data: "))
        if "choices" in event:
            yield event["choices"][0]["delta"].get("content", "")
        elif event["type"] == "content_block_delta":
            yield event["delta"]["text"]


async def _read(client: httpx.AsyncClient, way: Way, pace: str) -> None:
    headers = {"content-type": "application/json"}
    body = way.body(pace)
    began, first = time.perf_counter(), 0.0
    async with client.stream("POST", way.url, content=body, headers=headers) as response:
        response.raise_for_status()
        ages = []
        async for words in _words(response):
            now = time.monotonic_ns()
            first = first or time.perf_counter() - began
            ages += [(now - int(sent)) / 1e9 for sent in words.split()]
    assert len(ages) == PIECES, f"{way.name}: {len(ages)} words"
    if pace == _PACED:
        way.samples.first.append(first)
        way.samples.ages += ages
    else:
        way.samples.unpaced.append(time.perf_counter() - began)


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
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for way in ways:
            await _read(client, way, _PACED)
            vars(way.samples).update(vars(Samples()))
        for _ in range(streams):
            for way in ways:
                await _read(client, way, _PACED)
        for _ in range(streams):
            for way in ways:
                await _read(client, way, _UNPACED)


def _report(direct: Samples, passed: Samples, relayed: Samples) -> None:
    head = ("direct", "passed on", "relayed", "added", "ratio", "over passed on")
    print(f"{'median, ms':<30}" + "".join(f"{name:>16}" for name in head))
    for name, samples in (
        ("to the first word", (direct.first, passed.first, relayed.first)),
        ("age of a word", (direct.ages, passed.ages, relayed.ages)),
        ("unpaced stream, per word", _per_word(direct, passed, relayed)),
    ):
        a, b, c = (statistics.median(each) * 1e3 for each in samples)
        figures = (a, b, c, c - a, c / a, c - b)
        print(f"{name:<30}" + "".join(f"{figure:>16.3f}" for figure in figures))


def _per_word(*ways: Samples) -> tuple[list[float], ...]:
    return tuple([whole / PIECES for whole in samples.unpaced] for samples in ways)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20, help="of each kind")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
    with _server() as url, forwarded(url) as passing:
        table = {"kind": "other", "dialect": "openai", "base_url": url}
        models = {"models": {_PACED: _PACED, _UNPACED: _UNPACED}}
        with (
            RelayProcess({"it": {**table, **models}}, log_level="info") as relay,
            FrontendProcess() as frontend,
        ):
            frontend.push(route(relay.socket_path, mode="it"), default_mode="it")
            ways = [
                Way("direct", f"{url}/v1/chat/completions", is_relayed=False),
                Way("passed on", f"{passing}/v1/chat/completions", is_relayed=False),
                Way("relayed", f"{frontend.base_url}/v1/messages", is_relayed=True),
            ]
            asyncio.run(_measure(ways, arguments.streams))
            _report(*(way.samples for way in ways))


if __name__ == "__main__":
    main()
