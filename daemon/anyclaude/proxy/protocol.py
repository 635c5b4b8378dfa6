"""One HTTP connection: uvicorn's, and what that leaves open.

- Requests too broken for HTTP parsing get the JSON envelope and a `request-id` too.
- A client that takes no byte for long while some wait for it is dropped; one that takes them slowly
  is not. One whose request's head does not come to its end in that time is refused.
- At shutdown a connection that was accepted but has not asked yet is given a moment to ask.

The parser is httptools', in C: with h11 a request of Claude Code's size comes half a millisecond
later.
"""

import asyncio
import json
import secrets
import time
from typing import Final, cast

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from anyclaude.messages.errors import ApiError, invalid_request
from anyclaude.proxy.meter import Meter, StallWatch

log = structlog.get_logger("anyclaude.proxy.protocol")

_FIRST_REQUEST_GRACE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 1.0
_MAX_HEAD_BYTES: Final = 64 * 1024
_OFFERS: Final = frozenset({b"upgrade", b"http2-settings"})


class _HeadError(Exception):
    """A head that the parser lets pass and we do not."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    client_stall_seconds = 60.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._meter = Meter(cast(asyncio.Transport, transport), self.loop)
        self._stall = StallWatch(self._meter, self.client_stall_seconds, time.monotonic)
        self._stopping = False
        # Nothing more is read: it is not HTTP, or an answer said that the connection ends.
        self._broken = False
        self._complaint = ""
        # Since when a request's head has been awaited; None while there is none to wait for.
        self._head_since: float | None = time.monotonic()
        # It has begun.
        self._in_head = False
        self._head_bytes = 0
        super().connection_made(cast(asyncio.Transport, self._meter))

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self.send_400_response(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._head_since is None:
            self._head_since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a chunked body is no header: the request has been judged by those it had.
        if not self._in_head:
            return
        name = name.lower()
        self.expect_100_continue |= name == b"expect" and value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_since = None
        self._check_head()
        if self.parser.should_upgrade():
            # It comes again, without the offer.
            return
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _decline(self, rest: bytes) -> None:
        """Reads a request that offers another protocol, as Java's clients do, without its offer.

        The parser takes what follows the head for that protocol, body and all.

        Args:
            rest: what follows the head.
        """
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in tokens if token.lower() not in _OFFERS)
            if value and name not in _OFFERS:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if size > _MAX_HEAD_BYTES:
            self._complaint = _too_large()
        elif self.parser.get_method() == b"CONNECT":
            self._complaint = "This is no proxy: it does not CONNECT."
        elif hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            self._complaint = "The request's head needs one Host."
        if self._complaint:
            raise _HeadError

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._broken and self.cycle.response_complete:
            self._refuse(invalid_request(self._complaint))

    def drop_if_stalled(self) -> None:
        since = self._head_since
        if since is not None and time.monotonic() - since >= self.client_stall_seconds:
            self._head_since = None
            self._drop_unasked()
        if self._stall.has_stalled():
            log.warning("client dropped", why="it took no byte", seconds=self.client_stall_seconds)
            self._meter.abort()

    def _drop_unasked(self) -> None:
        if self._in_head:
            self._broken = True
            self._refuse(_late_head(self.client_stall_seconds))
        else:
            # Who has asked nothing might take a refusal for the answer to what it asks next.
            self.transport.close()

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
        self._broken = True
        self._complaint = self._complaint or msg
        if self._is_answering:
            if self.cycle.more_body:
                # What is broken is the request that is being answered.
                self.transport.close()
            # Otherwise what follows it, which is refused in its turn.
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # Its application is told that the client is gone, and says nothing.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refuse(invalid_request(self._complaint))

    @property
    def _is_answering(self) -> bool:
        """A request that came whole is in work, or an answer under way."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or not cycle.more_body

    def _refuse(self, error: ApiError) -> None:
        """Answers in the place of the application, and ends the connection."""
        if self.transport.is_closing():
            return
        self.transport.write(_refusal(error))
        # Closing on unread bytes would reset the connection before the client has read this.
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _too_large() -> str:
    return f"The request's head is larger than the maximum of {_MAX_HEAD_BYTES} bytes."


def _late_head(seconds: float) -> ApiError:
    said = f"The request's head did not come to its end within {seconds:g} seconds."
    return ApiError(408, said, error_type="timeout_error")


def _refusal(error: ApiError) -> bytes:
    request_id = "req_" + secrets.token_hex(12)
    body = json.dumps(error.envelope(request_id)).encode()
    headers = (
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        f"request-id: {request_id}\r\n"
        "connection: close\r\n\r\n"
    )
    return STATUS_LINE[error.status] + headers.encode() + body
