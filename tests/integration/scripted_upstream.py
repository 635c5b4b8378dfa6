"""A server that sends exactly what a test says: responses, pauses, resets."""

import asyncio
import json
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    # With its query.
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class Reset:
    """Ends the connection with a reset."""


class Hang:
    """Sends nothing more until the client leaves."""


@dataclass(frozen=True)
class Pause:
    """Sends nothing until the test sets the event, or the client leaves."""

    until: threading.Event


Step = bytes | Reset | Hang | Pause
Script = Callable[[Request], Sequence[Step]]


class ScriptedUpstream:
    """Runs in a thread of its own; a context manager."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[Request] = []
        # How many steps of scripts were done.
        self.done_steps = 0
        # Set when a client leaves in the middle of a script.
        self.left = threading.Event()
        self._tls = tls
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "ScriptedUpstream":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def posts(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path.split("?")[0] == path]

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        scheme = "https" if self._tls else "http"
        self.base_url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._tasks: set[asyncio.Task[Any]] = set()
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await _read(reader)
            self.requests.append(request)
            for step in self.script(request):
                await self._do(step, reader, writer)
                self.done_steps += 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.left.set()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _do(
        self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif isinstance(step, Reset):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            writer.transport.abort()
            raise asyncio.CancelledError
        else:
            await self._wait(step, reader)

    async def _wait(self, step: Step, reader: asyncio.StreamReader) -> None:
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            while not (isinstance(step, Pause) and step.until.is_set()):
                done, _ = await asyncio.wait({leaving}, timeout=0.01)
                if done:
                    self.left.set()
                    raise asyncio.CancelledError
        finally:
            leaving.cancel()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    lengths = {name.lower(): value for name, value in headers}
    if lengths.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(lengths.get("content-length", "0")))
    return Request(method, path, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def response(status: int, body: bytes | Any, *headers: str) -> bytes:
    """A whole response; anything but bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} Scripted",
        "content-type: application/json",
        f"content-length: {len(content)}",
        "connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


# The head of an event stream that ends with its connection.
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(data: Any, name: str = "") -> bytes:
    """One event of a stream."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    """One chunk of a chat completion."""
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


HELLO = [STREAM, chunk(content="Hel"), chunk("stop", content="lo"), event("[DONE]")]


def openai_server(answer: Script) -> Script:
    """Responds to probes as a plain OpenAI server does."""

    def script(request: Request) -> Sequence[Step]:
        if request.path == "/v1/models":
            return [response(200, {"data": [{"id": "served", "max_model_len": 4096}]})]
        if request.path.startswith("/v1/chat/completions"):
            return answer(request)
        return [response(404, {"detail": "Not Found"})]

    return script


def messages_server(answer: Script) -> Script:
    """Responds to probes as a server of the Anthropic dialect does."""

    def script(request: Request) -> Sequence[Step]:
        if request.path == "/v1/models":
            return [response(200, {"data": [{"id": "served"}]})]
        if request.path.split("?")[0] == "/v1/messages":
            return answer(request)
        return [response(404, {"detail": "Not Found"})]

    return script
