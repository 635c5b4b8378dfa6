"""One running Generate call, read ahead of the client within bounds.

Invariants:
- Events come in the worker's order, and how the call ended after the last of them.
- No more than `_AHEAD_BYTES`, and one message, are held for a client that takes nothing: then the
  worker is not read, and waits.
"""

import asyncio
from collections import deque
from typing import Any, Final

import grpc

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.batches import apart
from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.proxy.failures import lost, refused, restarting
from anyclaude.proxy.routes import retry_after_seconds
from anyclaude.worker.v1 import worker_pb2 as worker

_AHEAD_BYTES: Final = 64 * 1024


class Generation:
    """A task of its own reads: waiting for the next event then costs no task for each."""

    def __init__(self, call: Any, route: frontend.Route, stopping: asyncio.Event) -> None:
        self._call = call
        self._route = route
        self._ahead: deque[worker.GenerateResponse] = deque()
        self._ahead_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._waiting: asyncio.Future[None] | None = None
        self._stopping = asyncio.ensure_future(stopping.wait())
        self._reading = asyncio.ensure_future(self._read())
        for task in (self._stopping, self._reading):
            task.add_done_callback(self._wake)

    async def next(self, timeout: float | None) -> worker.GenerateResponse | None:
        """The next event, or None when `timeout` seconds pass first.

        Raises:
            ApiError: the worker failed the request, is gone, or this process is stopping.
        """
        if not (self._ahead or self._reading.done() or self._stopping.done()):
            await self._wait(timeout)
        if (event := self.ready()) is not None:
            return event
        if self._reading.done():
            raise self._reading.result()
        if self._stopping.done():
            raise restarting()
        return None

    def ready(self) -> worker.GenerateResponse | None:
        """The next event if it is here already."""
        if not self._ahead:
            return None
        event = self._ahead.popleft()
        self._ahead_bytes -= event.ByteSize()
        if self._ahead_bytes < _AHEAD_BYTES:
            self._room.set()
        return event

    async def _wait(self, timeout: float | None) -> None:
        """Until there is news, or time is over."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
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

    async def _read(self) -> ApiError:
        """Reads until the call ends; how it did."""
        try:
            while True:
                message = await self._call.read()
                if message is grpc.aio.EOF:
                    return ApiError(
                        500, "The model worker ended its answer before it was complete."
                    )
                for event in apart(message):
                    if event.WhichOneof("event") == "failed":
                        return refused(event.failed)
                    self._keep(event)
                await self._room.wait()
        except grpc.aio.AioRpcError as error:
            return lost(error, self._route)
        except asyncio.CancelledError:
            # Nobody here cancels what is then waited for: the channel did.
            return overloaded("The model worker went away.", retry_after_seconds(self._route))

    def _keep(self, event: worker.GenerateResponse) -> None:
        self._ahead.append(event)
        self._ahead_bytes += event.ByteSize()
        if self._ahead_bytes >= _AHEAD_BYTES:
            self._room.clear()
        self._wake()

    async def close(self) -> None:
        self._call.cancel()
        self._reading.cancel()
        self._stopping.cancel()
        await asyncio.gather(self._reading, self._stopping, return_exceptions=True)
