"""A server that does to the relay's HTTP client what a test says, on either loop."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import uvloop

from anyclaude.relay.failures import Party
from anyclaude.relay.outgoing import Body, Headers
from anyclaude.relay.wire import Wire
from anyclaude.runtime.upstreams import UpstreamSettings

PATIENCE_SECONDS = 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# The relay runs on uvloop's, whose transports are its own.
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Peer:
    """One connection as its server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        option = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.writer.transport.abort()

    async def answer(self, *pieces: bytes) -> bytes:
        """The head of the request, once it is answered."""
        head = await self.head()
        await self.say(*pieces)
        return head


Serve = Callable[[Peer], Awaitable[object]]
Test = Callable[[Wire, "Stage"], Awaitable[None]]


class Stage:
    """A server that does what each connection's turn says; the last turn is for all that follow."""

    def __init__(self, turns: tuple[Serve, ...]) -> None:
        self._turns = turns
        # Connections made to it.
        self.made = 0
        # Results of turns, or how they failed.
        self.told: list[object] = []
        self.news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        turn = self._turns[min(self.made, len(self._turns) - 1)]
        self.made += 1
        try:
            self.told.append(await turn(Peer(reader, writer)))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.told.append(error)
        except asyncio.CancelledError:
            self.told.append(None)
        finally:
            self.news.set()
            writer.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Staging:
    """Runs a test in front of such a server."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop_factory = loop_factory

    def __call__(
        self, test: Test, *turns: Serve, tls: ssl.SSLContext | None = None, path="", **settings
    ) -> None:
        async def run() -> None:
            stage = Stage(turns)
            server = await asyncio.start_server(stage.serve, "127.0.0.1", 0, ssl=tls)
            port = server.sockets[0].getsockname()[1]
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}"
            table = {"kind": "other", "base_url": url, "retries": 0, **settings}
            wire = Wire(Party("it", UpstreamSettings.model_validate(table)))
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await test(wire, stage)
            finally:
                await wire.close()
                server.close()
                await stage.stop()
            # What is closed is gone a moment later, and no task is left.
            await asyncio.sleep(0.01)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(run())


@asynccontextmanager
async def answered(wire: Wire, method: str, path: str, headers: Headers, *body: Body, **how):
    """The answer to a request, once begun."""
    async with wire.ask(method, path, headers, *body, **how) as asked:
        yield await asked.answer()


async def body_of(wire: Wire, method: str = "GET", **how) -> bytes:
    async with answered(wire, method, "/", [], **how) as answer:
        return await answer.read()


def answering(*pieces: bytes) -> Serve:
    """A turn that answers every request of a connection so."""

    async def turn(peer: Peer) -> None:
        while True:
            await peer.answer(*pieces)

    return turn


def once(*pieces: bytes) -> Serve:
    """A turn that answers one request and hangs up."""

    async def turn(peer: Peer) -> bytes:
        return await peer.answer(*pieces)

    return turn
