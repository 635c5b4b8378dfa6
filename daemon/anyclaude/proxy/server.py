"""uvicorn, with what it leaves to its host.

- Signals are handled by the process, not here; the listening socket is inherited.
- Requests too broken for HTTP parsing get the JSON envelope and a `request-id` too.
- A client that takes no byte for long while some wait for it is dropped; one that takes them slowly
  is not. One whose request's head does not come to its end in that time is refused.
- At shutdown a connection that was accepted but has not asked yet is given a moment to ask.
"""

import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Generator
from http import HTTPStatus
from typing import Any, Final, cast

import h11
import structlog
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from anyclaude.messages.errors import ApiError, invalid_request

log = structlog.get_logger("anyclaude.proxy.server")

_KEEP_ALIVE_SECONDS: Final = 75
_FIRST_REQUEST_GRACE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 1.0
# uvicorn ticks ten times a second.
_TICKS_PER_STALL_CHECK: Final = 10


class Meter:
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        self._transport.write(data)

    @property
    def taken_bytes(self) -> int:
        """What has left for the client."""
        return self.written_bytes - self._transport.get_write_buffer_size()


class StallWatch:
    """Tells a client that takes nothing from one that is slow."""

    def __init__(self, meter: Meter, limit_seconds: float, now: Callable[[], float]) -> None:
        self._meter = meter
        self._limit_seconds = limit_seconds
        self._now = now
        self._taken_bytes = 0
        self._since = now()

    def has_stalled(self) -> bool:
        taken = self._meter.taken_bytes
        if taken != self._taken_bytes or taken == self._meter.written_bytes:
            self._taken_bytes = taken
            self._since = self._now()
            return False
        return self._now() - self._since >= self._limit_seconds


class _Protocol(H11Protocol):
    """One connection."""

    client_stall_seconds = 60.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._meter = Meter(cast(asyncio.Transport, transport))
        self._stall = StallWatch(self._meter, self.client_stall_seconds, time.monotonic)
        self._stopping = False
        self._broken = False
        # Since when a request's head has been awaited; None while there is none to wait for.
        self._head_since: float | None = time.monotonic()
        super().connection_made(cast(asyncio.Transport, self._meter))

    def data_received(self, data: bytes) -> None:
        if not self._broken:
            super().data_received(data)
            self._note_head()

    def _note_head(self) -> None:
        begun, _ = self.conn.trailing_data
        if self.conn.their_state is not h11.IDLE or not begun:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = time.monotonic()

    def drop_if_stalled(self) -> None:
        since = self._head_since
        if since is not None and time.monotonic() - since >= self.client_stall_seconds:
            self._head_since = None
            self._drop_unasked()
        if self._stall.has_stalled():
            log.warning("client dropped", why="it took no byte", seconds=self.client_stall_seconds)
            self._meter.abort()

    def _drop_unasked(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(_late_head(self.client_stall_seconds))
        else:
            # Who has asked nothing might take a refusal for the answer to what it asks next.
            self.transport.close()

    def handle_events(self) -> None:
        super().handle_events()
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        self._stopping = True
        if self.cycle is not None:
            super().shutdown()
        else:
            self.loop.call_later(_FIRST_REQUEST_GRACE_SECONDS, self._close_if_unasked)

    def _close_if_unasked(self) -> None:
        if self.cycle is None:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(invalid_request(msg))

    def _refuse(self, error: ApiError) -> None:
        """Answers in the place of the application, and ends the connection."""
        self._broken = True
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            # An answer is under way: nothing else can be said on this connection.
            self.transport.close()
            return
        for event in _refusal(error):
            self.transport.write(self.conn.send(event) or b"")
        # Closing on unread bytes would reset the connection before the client has read this.
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _late_head(seconds: float) -> ApiError:
    said = f"The request's head did not come to its end within {seconds:g} seconds."
    return ApiError(408, said, error_type="timeout_error")


def _refusal(error: ApiError) -> tuple[h11.Event, ...]:
    request_id = "req_" + secrets.token_hex(12)
    body = json.dumps(error.envelope(request_id)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    reason = HTTPStatus(error.status).phrase.encode()
    head = h11.Response(status_code=error.status, headers=headers, reason=reason)
    return head, h11.Data(data=body), h11.EndOfMessage()


class HttpServer(Server):
    """Serves an application on inherited sockets until `should_exit` is set."""

    def __init__(
        self, app: Any, *, drain_timeout_seconds: float, client_stall_seconds: float
    ) -> None:
        protocol = type("Protocol", (_Protocol,), {"client_stall_seconds": client_stall_seconds})
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
                # `Exchange` adds one where an answer that is passed on has none.
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                # The last resort: answers end by themselves when the drain is over.
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
                cast(_Protocol, connection).drop_if_stalled()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
