"""One HTTP connection: uvicorn's protocol, with five cases that it leaves open.

- A request too broken to parse gets the JSON envelope and a `request-id` too.
- A client that receives nothing for `server.client_stall_seconds` while bytes wait for it is
  disconnected; a slow one is not. A request whose head is not complete in that time is refused.
- At shutdown a connection that has not sent its request yet gets a moment to do so.
- A response to HTTP/1.0 is not chunked; it ends with its connection (RFC 9112, section 6.1).
- A client may close its sending side after its request and still gets the response. One that closed
  both sides looks the same until something is sent to it, so small pieces that clients ignore are.

The parser is httptools', in C: with h11, parsing a request of Claude Code's size takes half a
millisecond longer.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import httptools
import structlog
from starlette.types import Scope, Send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from anyclaude.messages.errors import ApiError, invalid_request
from anyclaude.proxy.context import RequestContext

log = structlog.get_logger("anyclaude.proxy.protocol")

_FIRST_REQUEST_GRACE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 1.0
# When a client that sends no more is asked whether it still reads. Only the second write after it
# left can fail.
_FIRST_PROBES_SECONDS: Final = (0.0, 0.05, 0.2)
_PROBE_INTERVAL_SECONDS: Final = 1.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# A comment in an event stream, which clients skip.
_COMMENT: Final = b":\n\n"
_COMMENT_CHUNK: Final = b"3\r\n" + _COMMENT + b"\r\n"
_MAX_HEAD_BYTES: Final = 64 * 1024
_UPGRADE_HEADERS: Final = frozenset({b"upgrade", b"http2-settings"})
# A response's status line, not that of "100 Continue".
_RESPONSE_HEADS: Final = tuple(f"HTTP/1.1 {hundreds}".encode() for hundreds in "2345")


class ClientTransport:
    """A transport that knows how much the client has received.

    The head of a response is written together with what follows it in the same turn of the loop:
    alone it would wake a client that has nothing to read yet.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._now = now
        self._head = b""
        self._written_bytes = 0
        # How much the client had received, and since when it received no more.
        self._received_bytes = 0
        self._stalled_since = now()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._written_bytes += len(data)
        if not self._head and data.startswith(_RESPONSE_HEADS):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        head, self._head = self._head, b""
        self._transport.write(head + data if head else data)

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def has_stalled(self, limit_seconds: float) -> bool:
        """Whether bytes wait and the client received none for `limit_seconds`; call it often."""
        waiting = len(self._head) + self._transport.get_write_buffer_size()
        received = self._written_bytes - waiting
        if not waiting or received != self._received_bytes:
            self._received_bytes, self._stalled_since = received, self._now()
        return self._now() - self._stalled_since >= limit_seconds

    def _flush(self) -> None:
        if self._head and not self._transport.is_closing():
            self.write(b"")


def _unchunked(cycle: RequestResponseCycle) -> Send:
    """The cycle's `send`, which frames a body without a length by the end of the connection."""
    send = cycle.send
    is_unframed = False

    async def send_unchunked(message: ASGISendEvent) -> None:
        nonlocal is_unframed
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            is_unframed = b"content-length" not in names
            if is_unframed:
                cycle.chunked_encoding = False
        elif is_unframed and message["type"] == "http.response.body":
            # uvicorn checks that no more is sent than was announced.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return cast(Send, send_unchunked)


class _HeadError(Exception):
    """The parser accepts this head of a request, and the front end refuses it."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    client_stall_seconds = 60.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = ClientTransport(cast(asyncio.Transport, transport), self.loop)
        self._stopping = False
        # Nothing more is read: the input is not HTTP, or a response ends the connection.
        self._broken = False
        self._error_message = ""
        # Since when a request's head is awaited; None while a request is in progress.
        self._head_since: float | None = time.monotonic()
        self._in_head = False
        self._head_bytes = 0
        super().connection_made(cast(asyncio.Transport, self._client))

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self.send_400_response(_head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._head_since is None:
            self._head_since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers of a chunked body are dropped: the head has been checked without them.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_since = None
        self._check_head()
        if self.parser.should_upgrade():
            # The head is parsed again, without the offer.
            return
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False
        if self.parser.get_http_version() == "1.0":
            # uvicorn has no setting for this, so its method is replaced.
            self.cycle.send = _unchunked(self.cycle)  # type: ignore[method-assign, assignment]

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parses again, without the offer, a request that offers another protocol (h2c, as Java's
        clients do): the parser treats what follows such a head as bytes of that protocol.

        Args:
            rest: what follows the head.
        """
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(t for t in tokens if t.lower() not in _UPGRADE_HEADERS)
            if value and name not in _UPGRADE_HEADERS:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if size > _MAX_HEAD_BYTES:
            self._error_message = _head_too_large()
        elif self.parser.get_method() == b"CONNECT":
            self._error_message = "CONNECT is not supported: this is not a proxy."
        elif hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            self._error_message = "A request needs exactly one Host header."
        if self._error_message:
            raise _HeadError

    # uvicorn declares that it returns nothing; asyncio asks for a truth value.
    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. Returns whether the connection stays open."""
        if not self._is_responding or not self._can_probe(self.cycle):
            return False
        # No further request will come.
        self.cycle.keep_alive = False
        self._probe(iter(_FIRST_PROBES_SECONDS))
        return True

    @staticmethod
    def _can_probe(cycle: RequestResponseCycle) -> bool:
        """Whether something can be sent that is no part of the response."""
        if not cycle.response_started:
            return True
        return RequestContext.of(cast(Scope, cycle.scope)).response.sends_events

    def _probe(self, delays: Iterator[float]) -> None:
        """Asks the client again and again whether it still reads, until the response is complete.

        If it does not, its system resets the connection, and the next write finds that out.
        """
        cycle = self.cycle
        if cycle.response_complete or cycle.disconnected or self.transport.is_closing():
            return
        if not cycle.response_started:
            if cycle.scope["http_version"] != "1.0":
                self.transport.write(_CONTINUE)
        elif self._can_probe(cycle):
            self.transport.write(_COMMENT_CHUNK if cycle.chunked_encoding else _COMMENT)
        self.loop.call_later(next(delays, _PROBE_INTERVAL_SECONDS), self._probe, delays)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._broken and self.cycle.response_complete:
            self._refuse(invalid_request(self._error_message))

    def drop_if_stalled(self) -> None:
        since = self._head_since
        if since is not None and time.monotonic() - since >= self.client_stall_seconds:
            self._head_since = None
            self._drop_without_request()
        if self._client.has_stalled(self.client_stall_seconds):
            log.warning(
                "client dropped", why="it received no byte", seconds=self.client_stall_seconds
            )
            self._client.abort()

    def _drop_without_request(self) -> None:
        if self._in_head:
            self._broken = True
            self._refuse(_head_too_late(self.client_stall_seconds))
        else:
            # A client that is just sending its request would read a refusal as its response.
            self.transport.close()

    def shutdown(self) -> None:
        self._stopping = True
        if self.cycle is not None:
            super().shutdown()
        else:
            self.loop.call_later(_FIRST_REQUEST_GRACE_SECONDS, self._close_without_request)

    def _close_without_request(self) -> None:
        if self.cycle is None:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._broken = True
        self._error_message = self._error_message or msg
        if self._is_responding:
            if self.cycle.more_body:
                # The request in progress is the broken one.
                self.transport.close()
            # Otherwise the next request is, which is refused after this response.
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The application sees that the client is gone, and sends nothing.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refuse(invalid_request(self._error_message))

    @property
    def _is_responding(self) -> bool:
        """A complete request is in progress, or a response is being sent."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or not cycle.more_body

    def _refuse(self, error: ApiError) -> None:
        """Responds with an error in place of the application, and ends the connection."""
        if self.transport.is_closing():
            return
        self.transport.write(error.http_response())
        # Closing while bytes are unread would reset the connection before the client reads this.
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _head_too_large() -> str:
    return f"The request's head is larger than the maximum of {_MAX_HEAD_BYTES} bytes."


def _head_too_late(seconds: float) -> ApiError:
    message = f"The request's head was not complete within {seconds:g} seconds."
    return ApiError(408, message, error_type="timeout_error")
