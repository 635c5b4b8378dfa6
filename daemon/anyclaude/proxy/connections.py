"""Connections to workers for `Generate`, one of which waits for the next call.

Opening one takes half a millisecond, which a first word need not wait for.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.proxy.failures import gone
from anyclaude.proxy.generation import Generation
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.connections")


class Connections:
    def __init__(self, stopping: asyncio.Event) -> None:
        # Set when running calls must end now.
        self._stopping = stopping
        self._wanted: set[str] = set()
        self._spares: dict[str, Generation] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, sockets: set[str]) -> None:
        """Hangs up on every other worker that runs no call."""
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
        """Starts a generation and cancels what is left of it at the end.

        Raises:
            ApiError: the worker is gone, or the request larger than it takes.
        """
        generation = self._spares.pop(route.worker_socket, None) or Generation(self._stopping)
        if generation.is_lost:
            await generation.close()
            generation = Generation(self._stopping)
        try:
            if not generation.is_open:
                await _connect(generation, route)
            generation.ask(route, request)
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
            # The next call says so to its client.
            log.debug("no worker to connect to", why=str(error))
        if spare.is_open and socket in self._wanted and socket not in self._spares:
            self._spares[socket] = spare
        else:
            await spare.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _connect(generation: Generation, route: frontend.Route) -> None:
    try:
        await generation.connect(route.worker_socket)
    except OSError as error:
        raise gone(route, str(error)) from None
