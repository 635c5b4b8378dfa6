"""Keeps the unix sockets of a process at their paths.

Somebody may remove the folder of the sockets while the service runs, for example a program that
cleans /tmp. Connections live on then, and new ones fail. The process notices that its path is gone
and listens there again, beside the connections that it has.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn, Protocol

import grpc.aio
import structlog

from anyclaude.runtime import channels
from anyclaude.runtime.paths import UnsafeFolderError, make_private_folder

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

CHECK_SECONDS: Final = 1.0


async def keep_listening(path: Path, listen: Callable[[], Awaitable[None]]) -> NoReturn:
    """Calls `listen` again whenever `path` is gone; runs until cancelled."""
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        # A look at one folder entry takes microseconds, less than handing it to a thread.
        if path.exists():  # noqa: ASYNC240 - it does not block for long, as said above
            continue
        try:
            make_private_folder(path.parent)
            await listen()
            _log.warning("socket was removed and is made anew", path=str(path))
        except (OSError, RuntimeError, UnsafeFolderError) as error:
            # gRPC raises a RuntimeError if it cannot bind.
            _log.error("socket was removed and cannot be made anew", path=str(path), why=str(error))


class _Listening(Protocol):
    async def keep_listening(self) -> NoReturn: ...


@asynccontextmanager
async def kept_listening(*servers: _Listening) -> AsyncIterator[None]:
    """Keeps the sockets of the servers at their paths while the context lasts."""
    tasks = [asyncio.ensure_future(server.keep_listening()) for server in servers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


class RpcServer:
    """The gRPC services of a process, on one socket."""

    def __init__(self, path: Path, add_services: Callable[[grpc.aio.Server], None]) -> None:
        self._path = path
        self._add_services = add_services
        # The last one listens; the others serve the connections from before.
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        """Listens; when called again, listens anew."""
        server = channels.aio_server()
        self._add_services(server)
        channels.bind(server, self._path)
        await server.start()
        self._servers.append(server)

    async def keep_listening(self) -> NoReturn:
        """Listens anew whenever the socket was removed; runs until cancelled."""
        await keep_listening(self._path, self.start)

    async def stop(self, grace_seconds: float) -> None:
        """Accepts no new call, and cancels those that still run after `grace_seconds`."""
        await asyncio.gather(*(server.stop(grace_seconds) for server in self._servers))
        self._path.unlink(missing_ok=True)
