"""HTTP to one server: sends requests and reads their responses in pieces, with time limits.

Invariants:
- Only the caller's data, Host, and the header that frames the body are sent. No redirect is
  followed, since it could carry a prompt and a key to another host, and no cookie is kept.
- A request is sent again only when its connection broke before the first byte of the response.
- Leaving a response before its end closes the connection, so the server stops at once.
- A body is complete only when the server declared it so: by its length, by its last chunk or frame,
  or, if it declared neither, by an orderly end of the connection.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from socket import gaierror
from typing import Any, Final

import h11
import httpcore2
import httpx2

from anyclaude.messages.errors import invalid_request
from anyclaude.relay.failures import (
    Party,
    bad_certificates,
    bad_proxy,
    connect_timeout,
    explain_transport,
    silence,
)
from anyclaude.relay.transport import Transport, tls_context
from anyclaude.runtime.timeouts import Timeout

Headers = list[tuple[bytes, bytes]]
Body = bytes | AsyncIterator[bytes] | None

_MAX_ERROR_BYTES: Final = 1024 * 1024
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_HEADERS: Final = 256
_MAX_PORT: Final = 65535
_SWITCHING_PROTOCOLS: Final = 101
_KEEP_IDLE_SECONDS: Final = 5.0
_RETRY_PAUSE_SECONDS: Final = 0.05


class UploadError(Exception):
    """The source of a request's body failed."""


# Errors of a broken connection; OSError is one that TLS raises while it reads.
_BROKEN: Final = (
    OSError,
    # A host name that cannot be looked up.
    UnicodeError,
    UploadError,
    # A body longer than its declared length.
    h11.LocalProtocolError,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpx2.DecodingError,
    httpx2.TransportError,
)


class Response:
    """The head of a response, and its body to be read."""

    def __init__(
        self,
        response: httpx2.Response,
        party: Party,
        patience_seconds: float | None,
        *,
        decompress: bool,
    ) -> None:
        self.status = response.status_code
        self.headers = response.headers
        # Whether content has come: before it, a pause means that the server computes the prompt.
        self.begun = False
        # The longest silence, in place of the one in the settings.
        self.patience_seconds = patience_seconds
        # The body was read to its end.
        self.is_complete = False
        self._party = party
        self._pieces: AsyncGenerator[bytes, None] = (
            response.aiter_bytes() if decompress else response.aiter_raw()
        )

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    async def next(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            UpstreamFault: the connection broke, or the server stopped sending.
        """
        seconds = self._seconds
        try:
            async with Timeout(seconds):
                async for piece in self._pieces:
                    if piece:
                        return piece
        except TimeoutError:
            raise silence(self._party, seconds, begun=self.begun) from None
        except _BROKEN as error:
            raise explain_transport(error, self._party) from None
        self.is_complete = True
        return b""

    async def read(self) -> bytes:
        """Reads a whole small body: an error, or a response that is not streamed."""
        body = bytearray()
        while piece := await self.next():
            body += piece
            if not self.is_ok and len(body) > _MAX_ERROR_BYTES:
                break
        return bytes(body)

    async def aclose(self) -> None:
        await self._pieces.aclose()

    @property
    def _seconds(self) -> float:
        settings = self._party.settings
        if self.patience_seconds is not None:
            return self.patience_seconds
        return settings.idle_timeout_seconds if self.begun else settings.first_byte_timeout_seconds


class Client:
    """Sends requests to one server, and keeps its connections between them."""

    def __init__(
        self, party: Party, connect: Callable[[], httpx2.AsyncBaseTransport] | None = None
    ) -> None:
        self._party = party
        # Makes a transport; a test passes its own.
        self._connect = connect
        # Idle transports with the timers that close them; the one used last is at the end.
        self._idle: dict[Transport, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def close(self) -> None:
        """Closes what is idle now, and each other connection after its exchange."""
        self._is_closed = True
        while transport := self._pop_idle():
            await transport.aclose()

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: Body = None,
        *,
        patience_seconds: float | None = None,
        decompress: bool = True,
    ) -> AsyncIterator[Response]:
        """Sends a request and waits until its response begins.

        Args:
            method, path: `path` is below the server's root, with its query.
            headers: all headers except Host and the length of `body`.
            patience_seconds: the longest silence, in place of the one in the settings.
            decompress: whether a compressed body is decoded; otherwise it is returned as it came.

        Raises:
            UpstreamFault: no response began.
            ApiError: the request cannot be sent as HTTP.
        """
        retries = 0 if isinstance(body, AsyncIterator) else self._party.settings.retries
        request = self._request(method, path, headers, body)
        transport = await self._take_idle() or self._open()
        while (
            received := await self._exchange(transport, request, patience_seconds, retries)
        ) is None:
            retries -= 1
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)
            # The next try has a new connection: if an idle one broke, so have the others.
            transport = self._open()
        response = Response(received, self._party, patience_seconds, decompress=decompress)
        try:
            yield response
        finally:
            try:
                await response.aclose()
            finally:
                await self._release(transport, is_complete=response.is_complete)

    async def _exchange(
        self,
        transport: httpx2.AsyncBaseTransport,
        request: httpx2.Request,
        patience_seconds: float | None,
        retries: int,
    ) -> httpx2.Response | None:
        """The response; None if another try may help. Without one, the transport is closed.

        Raises:
            UpstreamFault: no response began, and no try is left.
        """
        try:
            response = await self._response(transport, request, patience_seconds)
            _check_head(response)
        except BaseException as error:
            await transport.aclose()
            if not isinstance(error, _BROKEN):
                raise
            if not retries or not _may_repeat(error, transport):
                raise explain_transport(error, self._party) from None
            return None
        return response

    async def _response(
        self,
        transport: httpx2.AsyncBaseTransport,
        request: httpx2.Request,
        patience_seconds: float | None,
    ) -> httpx2.Response:
        settings = self._party.settings
        patience = patience_seconds or settings.first_byte_timeout_seconds
        is_connected = False
        try:
            async with Timeout(min(settings.connect_timeout_seconds, patience)) as limit:

                async def trace(event: str, info: dict[str, Any]) -> None:
                    nonlocal is_connected
                    begins = event.endswith("send_request_headers.started")
                    # A proxy first gets a request to connect.
                    if begins and info["request"].method != b"CONNECT":
                        is_connected = True
                        limit.restart(patience)

                request.extensions["trace"] = trace
                return await transport.handle_async_request(request)
        except TimeoutError:
            if is_connected or patience < settings.connect_timeout_seconds:
                raise silence(self._party, patience, begun=False) from None
            raise connect_timeout(self._party) from None

    def _request(self, method: str, path: str, headers: Headers, body: Body) -> httpx2.Request:
        """
        Raises:
            UpstreamFault: the server has no valid address.
            ApiError: the request cannot be sent as HTTP.
        """
        try:
            url = httpx2.URL(self._party.settings.root)
            if (url.port or 0) > _MAX_PORT:
                raise httpx2.InvalidURL("no such port")
        except httpx2.InvalidURL as error:
            raise explain_transport(gaierror(str(error)), self._party) from None
        stripped = [(name, value.strip(b" \t")) for name, value in headers]
        target = url.raw_path.rstrip(b"/") + path.encode()
        content = _uploaded(body) if isinstance(body, AsyncIterator) else body
        request = httpx2.Request(
            method, url, headers=stripped, content=content, extensions={"target": target}
        )
        try:
            h11.Request(method=method, target=target, headers=request.headers.raw)
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise invalid_request(f"This request cannot be sent on: {error}.") from None
        return request

    def _open(self) -> httpx2.AsyncBaseTransport:
        # It is made late: reading certificates takes a while, and most servers are never used.
        if self._connect is None:
            self._connect = self._connector()
        return self._connect()

    def _connector(self) -> Callable[[], Transport]:
        settings = self._party.settings
        tls = None
        if settings.ca_file or settings.root.startswith("https:"):
            try:
                tls = tls_context(settings.ca_file)
            except OSError as error:
                raise bad_certificates(self._party, error) from None
        try:
            proxy = httpx2.Proxy(self._party.proxy) if self._party.proxy else None
        except (ValueError, httpx2.InvalidURL):
            raise bad_proxy(self._party) from None
        if proxy and proxy.url.scheme not in ("http", "https"):
            raise bad_proxy(self._party)
        return lambda: Transport(tls, proxy)

    async def _take_idle(self) -> Transport | None:
        while transport := self._pop_idle():
            if transport.is_reusable:
                return transport
            await transport.aclose()
        return None

    def _pop_idle(self) -> Transport | None:
        if not self._idle:
            return None
        transport, timer = self._idle.popitem()
        timer.cancel()
        return transport

    async def _release(self, transport: httpx2.AsyncBaseTransport, *, is_complete: bool) -> None:
        is_kept = is_complete and not self._is_closed
        if is_kept and isinstance(transport, Transport) and transport.is_reusable:
            loop = asyncio.get_running_loop()
            self._idle[transport] = loop.call_later(_KEEP_IDLE_SECONDS, self._expire, transport)
        else:
            await transport.aclose()

    def _expire(self, transport: Transport) -> None:
        del self._idle[transport]
        task = asyncio.ensure_future(transport.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _may_repeat(error: Exception, transport: httpx2.AsyncBaseTransport) -> bool:
    """Whether another try may help: the server has not begun to respond."""
    # A refused connection is refused again a moment later.
    final = (httpcore2.ConnectError, httpcore2.ProxyError, httpcore2.LocalProtocolError)
    has_received = isinstance(transport, Transport) and transport.has_received
    return not isinstance(error, final) and not has_received


def _check_head(response: httpx2.Response) -> None:
    """Raises httpcore2.RemoteProtocolError if the head cannot be passed on."""
    headers = response.headers.raw
    if response.status_code == _SWITCHING_PROTOCOLS:
        raise httpcore2.RemoteProtocolError("the server changes to another protocol")
    if len(headers) > _MAX_HEADERS:
        raise httpcore2.RemoteProtocolError("too many headers")
    if sum(len(name) + len(value) for name, value in headers) > _MAX_HEADER_BYTES:
        raise httpcore2.RemoteProtocolError("headers too large")


async def _uploaded(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A body in pieces; its source is closed as soon as sending stops."""
    try:
        async for piece in body:
            if piece:
                yield piece
    except Exception as error:
        raise UploadError(str(error)) from error
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()
