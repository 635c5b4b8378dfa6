"""Calls of `Generate`: one connection each, read ahead of the client within bounds.

Invariants:
- Events come in the worker's order, and the call's failure after the last of them.
- At most `HIGH_WATER_BYTES` plus one read are buffered for a slow client. Beyond that the worker's
  connection is not read, so the worker waits.
- Leaving `generate` closes the connection, which cancels the call in the worker.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.failures import gone, restarting, stops, too_large
from anyclaude.runtime.sockets import CHECK_SECONDS
from anyclaude.runtime.streams import (
    HIGH_WATER_BYTES,
    MessageTooLargeError,
    StreamProtocol,
    framed,
    stream_socket,
)
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.generation")

# How long a worker may take to listen again after somebody removed its socket.
_SOCKET_SECONDS: Final = 2 * CHECK_SECONDS
_SOCKET_POLL_SECONDS: Final = 0.05


class Generation(StreamProtocol):
    """The front end's end of one connection; received events wake the task that waits for them."""

    def __init__(self, stopping: asyncio.Event) -> None:
        super().__init__()
        self._route = frontend.Route()
        self._events: list[worker.GenerateResponse] = []
        self._events_bytes = 0
        self._is_connected = False
        # This side is done with the connection, so its end says nothing about the worker.
        self._is_closed = False
        # Why the connection ended; empty until it did.
        self._lost = ""
        # Raised once the events before it are read.
        self._end: ApiError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._stopping = asyncio.ensure_future(stopping.wait())
        self._stopping.add_done_callback(self._wake)

    async def connect(self, worker_socket: str) -> None:
        """Opens the connection.

        Raises:
            OSError: the worker is gone.
        """
        path = str(stream_socket(worker_socket))
        await asyncio.get_running_loop().create_unix_connection(lambda: self, path)

    @property
    def is_open(self) -> bool:
        return self._is_connected and not self._lost

    def start(self, route: frontend.Route, request: worker.GenerateRequest) -> None:
        """Sends the request.

        Raises:
            ApiError: the worker is gone, or the request is larger than a message may be.
        """
        self._route = route
        if not self.is_open:
            raise gone(route, self._lost)
        try:
            self.transport.write(framed(request))
        except MessageTooLargeError:
            raise too_large() from None

    async def next(self, timeout: float | None) -> list[worker.GenerateResponse]:
        """All received events, at least one; none when `timeout` seconds pass first.

        Raises:
            ApiError: the worker failed the request or is gone, or this process is stopping.
        """
        if not (self._events or self._end or self._stopping.done()):
            await self._wait(timeout)
        if self._events:
            events, self._events, self._events_bytes = self._events, [], 0
            self.flow.resume_reading()
            return events
        if self._end is not None:
            raise self._end
        if self._stopping.done():
            raise restarting()
        return []

    async def close(self) -> None:
        self._is_closed = True
        if self._is_connected:
            self.transport.abort()
        self._stopping.cancel()
        await asyncio.gather(self._stopping, return_exceptions=True)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._is_connected = True

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self.frames.feed(data):
                self._receive(payload)
        except (DecodeError, MessageTooLargeError) as error:
            log.error("worker's response cannot be read", why=type(error).__name__)
            self._finish(ApiError(500, "The model worker sent an answer that cannot be read."))
        if self._events_bytes >= HIGH_WATER_BYTES:
            self.flow.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = str(exc or "it closed the connection")
        # The worker closes the connection behind a complete answer, too.
        if self._end is None and self._route.worker_socket and not self._is_closed:
            self._finish(gone(self._route, self._lost))

    def _receive(self, payload: bytes) -> None:
        if self._end is not None:
            return
        if not payload:
            self._finish(ApiError(500, "The model worker ended its answer before it was complete."))
            return
        event = worker.GenerateResponse.FromString(payload)
        if event.HasField("failed"):
            stopped = event.failed.worker_stops
            self._finish((stops if stopped else ApiError.from_failed)(event.failed))
            return
        self._events.append(event)
        self._events_bytes += len(payload)

    def _finish(self, end: ApiError) -> None:
        self._end = self._end or end
        self._wake()

    async def _wait(self, timeout: float | None) -> None:
        """Returns when something was received, or after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        # Cheaper than asyncio.timeout, which costs several microseconds for each word.
        timer = loop.call_later(timeout, self._wake) if timeout is not None else None
        try:
            await self._waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def _wake(self, *_: object) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Generations:
    """Starts generations. Each worker has one open connection that waits for the next call.

    Opening a connection takes half a millisecond, which this removes from the first token's delay.
    """

    def __init__(self, stopping: asyncio.Event) -> None:
        # Set when running calls must end now.
        self._stopping = stopping
        self._wanted: set[str] = set()
        self._spares: dict[str, Generation] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, sockets: set[str]) -> None:
        """Closes the waiting connections to all other workers."""
        self._wanted = sockets
        for socket in self._spares.keys() - sockets:
            self._in_background(self._spares.pop(socket).close())

    async def close(self) -> None:
        self.keep(set())
        while self._tasks:
            await asyncio.gather(*self._tasks)

    @asynccontextmanager
    async def generate(
        self, route: frontend.Route, request: worker.GenerateRequest
    ) -> AsyncIterator[Generation]:
        """Starts a generation, and cancels it at the end if it still runs.

        Raises:
            ApiError: the worker is gone, or the request is larger than a message may be.
        """
        generation = self._spares.pop(route.worker_socket, None)
        if generation is not None and not generation.is_open:
            await generation.close()
            generation = None
        generation = generation or Generation(self._stopping)
        try:
            if not generation.is_open:
                await _connect(generation, route)
            generation.start(route, request)
            yield generation
        finally:
            await generation.close()
            self._in_background(self._renew(route.worker_socket))

    async def _renew(self, socket: str) -> None:
        if socket not in self._wanted or socket in self._spares:
            return
        spare = Generation(self._stopping)
        try:
            await spare.connect(socket)
        except OSError as error:
            # The next call connects again, and reports a failure to its client.
            log.debug("worker does not accept connections", why=str(error))
        if spare.is_open and socket in self._wanted and socket not in self._spares:
            self._spares[socket] = spare
        else:
            await spare.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _connect(generation: Generation, route: frontend.Route) -> None:
    """Connects to the worker; a socket that was removed has the time to be made anew."""
    deadline = asyncio.get_running_loop().time() + _SOCKET_SECONDS
    while True:
        try:
            return await generation.connect(route.worker_socket)
        except OSError as error:
            is_removed = isinstance(error, FileNotFoundError)
            if not is_removed or asyncio.get_running_loop().time() >= deadline:
                raise gone(route, str(error)) from None
        await asyncio.sleep(_SOCKET_POLL_SECONDS)
