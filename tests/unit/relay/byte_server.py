"""A server that sends the relay's HTTP client exactly the bytes that a test names."""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from anyclaude.relay.client import Client
from anyclaude.relay.failures import Party
from anyclaude.runtime.upstreams import UpstreamSettings

PATIENCE_SECONDS = 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Peer:
    """One connection as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def send_bytewise(self, data: bytes) -> None:
        """Sends each byte in a write of its own."""
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(0)

    def reset(self) -> None:
        option = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.writer.transport.abort()

    async def answer(self, *pieces: bytes) -> bytes:
        """Sends a response; returns the head of the request."""
        head = await self.head()
        await self.send(*pieces)
        return head


Serve = Callable[[Peer], Awaitable[object]]


class Stage:
    """A server that handles its n-th connection by the n-th turn, and later ones by the last."""

    client: Client
    url: str
    settings: UpstreamSettings

    def __init__(self, turns: tuple[Serve, ...]) -> None:
        self._turns = turns
        # How many connections were made.
        self.made = 0
        # What each turn returned, or the error that ended it.
        self.results: list[object] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        turn = self._turns[min(self.made, len(self._turns) - 1)]
        self.made += 1
        try:
            self.results.append(await turn(Peer(reader, writer)))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.results.append(error)
        except asyncio.CancelledError:
            self.results.append(None)
        finally:
            writer.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def first_result(self) -> object:
        await until(lambda: bool(self.results))
        return self.results[0]

    def other_client(self, **settings: object) -> Client:
        """A client with other settings."""
        return Client(Party("it", self.settings.model_copy(update=settings)))

    async def body(self, method: str = "GET", *body: bytes | AsyncIterator[bytes], **how) -> bytes:
        async with self.client.send(method, "/", [], *body, **how) as response:
            return await response.read()


@asynccontextmanager
async def serving(
    *turns: Serve,
    tls: ssl.SSLContext | None = None,
    path: str = "",
    patience_seconds: float = PATIENCE_SECONDS,
    **settings: object,
) -> AsyncIterator[Stage]:
    """A server and a client of it; the client's connections are closed at the end."""
    before = asyncio.all_tasks()
    stage = Stage(turns)
    server = await asyncio.start_server(stage.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    stage.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}"
    table = {"kind": "other", "base_url": stage.url, "retries": 0, **settings}
    stage.settings = UpstreamSettings.model_validate(table)
    stage.client = Client(Party("it", stage.settings))
    try:
        async with asyncio.timeout(patience_seconds):
            yield stage
    finally:
        await stage.client.close()
        server.close()
        await stage.stop()
    await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def answering(*pieces: bytes) -> Serve:
    """A turn that sends the same response to every request of a connection."""

    async def turn(peer: Peer) -> None:
        while True:
            await peer.answer(*pieces)

    return turn


def once(*pieces: bytes) -> Serve:
    """A turn that answers one request and closes the connection."""

    async def turn(peer: Peer) -> bytes:
        return await peer.answer(*pieces)

    return turn
