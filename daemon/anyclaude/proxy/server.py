"""uvicorn, embedded: this process handles the signals, and inherits the listening socket."""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, Final, cast

from uvicorn import Config, Server

from anyclaude.proxy.protocol import HttpProtocol

_KEEP_ALIVE_SECONDS: Final = 75
# uvicorn ticks ten times a second.
_TICKS_PER_STALL_CHECK: Final = 10


class HttpServer(Server):
    """Serves an application on inherited sockets until `should_exit` is set."""

    def __init__(
        self, app: Any, *, drain_timeout_seconds: float, client_stall_seconds: float
    ) -> None:
        protocol = type("Protocol", (HttpProtocol,), {"client_stall_seconds": client_stall_seconds})
        super().__init__(
            Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                # `Response` adds one, unless a forwarded response has its own.
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                # The last resort: responses end by themselves when the drain is over.
                timeout_graceful_shutdown=int(drain_timeout_seconds) + 3,
            )
        )
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_STALL_CHECK == 0:
            for connection in list(self.server_state.connections):
                cast(HttpProtocol, connection).drop_if_stalled()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
