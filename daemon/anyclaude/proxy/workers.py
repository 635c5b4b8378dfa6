"""Calls to workers: one gRPC channel per worker socket, and no call outlives its request.

Invariants:
- Leaving a call cancels it: a gRPC call that is just dropped, or whose iteration is broken off,
  keeps the worker busy with a response that nobody reads.
- A channel lives as long as a route names its socket or a call runs on it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.proxy.failures import lost, restarting
from anyclaude.proxy.generation import Generations
from anyclaude.proxy.routes import retry_after_seconds
from anyclaude.runtime.channels import aio_channel
from anyclaude.worker.v1 import worker_pb2 as worker
from anyclaude.worker.v1.worker_pb2_grpc import WorkerServiceStub

_COUNT_TIMEOUT_SECONDS: Final = 60.0


@dataclass
class _Link:
    channel: grpc.aio.Channel
    calls: int = 0
    wanted: bool = True


class Workers:
    """Calls the worker that a route names."""

    def __init__(self, stopping: asyncio.Event) -> None:
        # Set when running calls must end now.
        self._stopping = stopping
        generations = Generations(stopping)
        self.generate = generations.generate
        self._generations = generations
        self._links: dict[str, _Link] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def keep(self, sockets: set[str]) -> None:
        """Closes channels to every other socket, each after its last call."""
        self._generations.keep(sockets)
        for socket, link in list(self._links.items()):
            link.wanted = socket in sockets
            self._close_if_unused(socket, link)

    async def close(self) -> None:
        self.keep(set())
        await asyncio.gather(self._generations.close(), *self._closing)

    @asynccontextmanager
    async def forward(self, route: frontend.Route) -> AsyncIterator["Forwarding"]:
        """Opens a Forward call, and cancels it at the end if it still runs."""
        with self._stub(route) as stub:
            forwarding = Forwarding(stub.Forward(), route, self._stopping)
            try:
                yield forwarding
            finally:
                await forwarding.close()

    async def count_tokens(
        self, route: frontend.Route, request: worker.CountTokensRequest
    ) -> worker.CountTokensResponse:
        """Counts a prompt's tokens.

        Raises:
            ApiError: the worker refuses the prompt, or is gone.
        """
        with self._stub(route) as stub:
            try:
                response = await stub.CountTokens(request, timeout=_COUNT_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise lost(error, route) from None
        if response.WhichOneof("result") != "input_tokens":
            raise ApiError.from_failed(response.failed)
        assert isinstance(response, worker.CountTokensResponse)
        return response

    @contextmanager
    def _stub(self, route: frontend.Route) -> Iterator[Any]:
        socket = route.worker_socket
        if socket not in self._links:
            self._links[socket] = _Link(aio_channel(socket))
        link = self._links[socket]
        link.calls += 1
        try:
            yield WorkerServiceStub(link.channel)  # type: ignore[no-untyped-call]
        finally:
            link.calls -= 1
            self._close_if_unused(socket, link)

    def _close_if_unused(self, socket: str, link: _Link) -> None:
        if link.wanted or link.calls:
            return
        del self._links[socket]
        task = asyncio.ensure_future(link.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class Forwarding:
    """One running Forward call: parts of a request out, parts of the response in."""

    def __init__(self, call: Any, route: frontend.Route, stopping: asyncio.Event) -> None:
        self._call = call
        self._route = route
        self._stopping = asyncio.ensure_future(stopping.wait())

    async def send(self, part: worker.ForwardRequest) -> bool:
        """Waits until the part is sent; False once the worker accepts no more."""
        try:
            await self._call.write(part)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            # The worker responded before the request's end; reading the response shows why.
            return False
        return True

    async def end(self) -> None:
        """Tells the worker that the request is complete."""
        try:
            await self._call.done_writing()
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            # The worker responded before the request's end, as in `send`.
            return

    async def next(self) -> worker.ForwardResponse | None:
        """The next part of the response; None at its end.

        Raises:
            ApiError: the response failed or broke off, or this process is stopping.
        """
        reading = asyncio.ensure_future(self._call.read())
        try:
            await asyncio.wait({reading, self._stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise restarting()
            if reading.cancelled():
                # The channel cancelled it; nothing here did.
                raise overloaded("The relay worker went away.", retry_after_seconds(self._route))
            part = reading.result()
        except grpc.aio.AioRpcError as error:
            raise lost(error, self._route) from None
        finally:
            reading.cancel()
        if part is grpc.aio.EOF:
            return None
        assert isinstance(part, worker.ForwardResponse)
        if part.WhichOneof("part") == "failed":
            raise ApiError.from_failed(part.failed)
        return part

    async def close(self) -> None:
        self._call.cancel()
        self._stopping.cancel()
        await asyncio.gather(self._stopping, return_exceptions=True)
