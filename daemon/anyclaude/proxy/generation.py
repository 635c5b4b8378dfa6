"""One running Generate call, read ahead of the client within bounds.

Invariants:
- Events come in the worker's order, and how the call ended after the last of them.
- No more than `_AHEAD_BYTES`, and what one read brings, are held for a client that takes nothing:
  then the worker is not read, and waits.
- A call that is left hangs up, which cancels it: no worker computes for nobody.
"""

import asyncio
from typing import Final, cast

import structlog
from google.protobuf.message import DecodeError

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.failures import gone, refused, restarting, too_large
from anyclaude.runtime.alarm import Alarm
from anyclaude.runtime.streams import (
    Frames,
    MessageTooLargeError,
    framed,
    make_room,
    stream_socket,
)
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.generation")

_AHEAD_BYTES: Final = 64 * 1024


class Generation(asyncio.Protocol):
    """A connection's own protocol: what comes wakes the waiting answer and nobody else."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._route = frontend.Route()
        self._frames = Frames()
        self._ahead: list[worker.GenerateResponse] = []
        self._ahead_bytes = 0
        self._transport: asyncio.Transport | None = None
        # Why the connection is no more.
        self._lost = ""
        # How the call ended; told after the events.
        self._end: ApiError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._alarm = Alarm(self._wake)
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
        return self._transport is not None and not self.is_lost

    @property
    def is_lost(self) -> bool:
        """The worker closed it."""
        return bool(self._lost)

    def ask(self, route: frontend.Route, request: worker.GenerateRequest) -> None:
        """Sends the request.

        Raises:
            ApiError: the worker is gone, or the request larger than it takes.
        """
        self._route = route
        if self._transport is None or self._lost:
            raise gone(route, self._lost)
        try:
            self._transport.write(framed(request))
        except MessageTooLargeError:
            raise too_large() from None

    async def next(self, timeout: float | None) -> list[worker.GenerateResponse]:
        """The events that are here, at least one; none when `timeout` seconds pass first.

        Raises:
            ApiError: the worker failed the request, is gone, or this process is stopping.
        """
        if not (self._ahead or self._end or self._stopping.done()):
            await self._wait(timeout)
        if self._ahead:
            return self._taken()
        if self._end is not None:
            raise self._end
        if self._stopping.done():
            raise restarting()
        return []

    def _taken(self) -> list[worker.GenerateResponse]:
        events, self._ahead = self._ahead, []
        if self._ahead_bytes >= _AHEAD_BYTES and self._transport and self._end is None:
            self._transport.resume_reading()
        self._ahead_bytes = 0
        return events

    async def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.abort()
        self._alarm.close()
        self._stopping.cancel()
        await asyncio.gather(self._stopping, return_exceptions=True)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        make_room(self._transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._frames.feed(data):
                self._take(payload)
        except (DecodeError, MessageTooLargeError) as error:
            log.error("worker's answer cannot be read", why=type(error).__name__)
            self._finish(ApiError(500, "The model worker sent an answer that cannot be read."))
        if self._ahead_bytes >= _AHEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = str(exc or "it hung up")
        if self._end is None and self._route.worker_socket:
            self._finish(gone(self._route, self._lost))

    def _take(self, payload: bytes) -> None:
        if self._end is not None:
            return
        if not payload:
            self._finish(ApiError(500, "The model worker ended its answer before it was complete."))
            return
        event = worker.GenerateResponse.FromString(payload)
        if event.HasField("failed"):
            self._finish(refused(event.failed))
            return
        self._ahead.append(event)
        self._ahead_bytes += len(payload)

    def _finish(self, end: ApiError) -> None:
        if self._end is None:
            self._end = end
        self._wake()

    async def _wait(self, timeout: float | None) -> None:
        """Until there is news, or time is over."""
        self._waiting = asyncio.get_running_loop().create_future()
        if timeout is not None:
            self._alarm.begin(timeout)
        try:
            await self._waiting
        finally:
            self._waiting = None
            self._alarm.end()

    def _wake(self, *_: object) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
