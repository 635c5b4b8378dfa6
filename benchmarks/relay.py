"""What the relay adds: one stream read from a server directly, and through front end and relay.

    python -m benchmarks.relay [--streams N]

Each piece of the server's answer is the moment at which it was sent, so every reader knows how old
it is. Direct and relayed streams take turns. The prompt has the size of Claude Code's.
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

from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_process import RelayProcess

PIECES = 100
PAUSE_SECONDS = 0.005
_TOOLS = [
    {"name": f"Tool{i}", "description": "d" * 2700, "input_schema": {"type": "object"}}
    for i in range(25)
]
_MESSAGES = [{"role": "user", "content": "Hello."}]
_RELAYED = {"model": "m", "max_tokens": 500, "stream": True, "messages": _MESSAGES, "tools": _TOOLS}
_DIRECT = {
    **_RELAYED,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool["description"],
                "parameters": tool["input_schema"],
            },
        }
        for tool in _TOOLS
    ],
}


@dataclass
class Samples:
    """Seconds."""

    first: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)


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
            await reader.readexactly(int(length.partition(":")[2]))
            await _stream(writer)
    writer.close()


async def _stream(writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for _ in range(PIECES):
        _send(writer, {"content": f"{time.monotonic_ns()} "}, None)
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


async def _read(client: httpx.AsyncClient, url: str, body: bytes, samples: Samples) -> None:
    began, first = time.perf_counter(), 0.0
    headers = {"content-type": "application/json"}
    async with client.stream("POST", url, content=body, headers=headers) as response:
        response.raise_for_status()
        async for words in _words(response):
            now = time.monotonic_ns()
            first = first or time.perf_counter() - began
            samples.ages += [(now - int(sent)) / 1e9 for sent in words.split()]
    samples.first.append(first)


@contextlib.contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.relay", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


async def _measure(direct_url: str, relayed_url: str, streams: int) -> tuple[Samples, Samples]:
    direct, relayed = Samples(), Samples()
    ways = (
        (f"{direct_url}/v1/chat/completions", json.dumps(_DIRECT).encode(), direct),
        (f"{relayed_url}/v1/messages", json.dumps(_RELAYED).encode(), relayed),
    )
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for url, body, _ in ways:
            await _read(client, url, body, Samples())
        for _ in range(streams):
            for url, body, samples in ways:
                await _read(client, url, body, samples)
    return direct, relayed


def _report(direct: Samples, relayed: Samples) -> None:
    print(f"{'median, ms':<24}{'direct':>10}{'relayed':>10}{'added':>10}{'ratio':>10}")
    for name, one, other in (
        ("to the first word", direct.first, relayed.first),
        ("age of a word", direct.ages, relayed.ages),
    ):
        a, b = statistics.median(one) * 1e3, statistics.median(other) * 1e3
        print(f"{name:<24}{a:>10.3f}{b:>10.3f}{b - a:>10.3f}{b / a:>10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20, help="of each kind")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
    with _server() as url:
        table = {"kind": "other", "dialect": "openai", "model": "m", "base_url": url}
        with RelayProcess({"it": table}, log_level="info") as relay, FrontendProcess() as frontend:
            frontend.push(route(relay.socket_path, mode="it"), default_mode="it")
            _report(*asyncio.run(_measure(url, frontend.base_url, arguments.streams)))


if __name__ == "__main__":
    main()
