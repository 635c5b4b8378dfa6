"""One HTTP connection to a server: httpcore2 below httpx2's transport interface.

httpcore2 speaks HTTP/1.1 and HTTP/2, TLS, and to forward proxies. What this module adds lies below
it, in the network stream, and around it:
- A TLS connection that ends without close_notify was cut off: the body that it ends is incomplete.
- A server may respond before it has read the whole request (413): sending stops, and its response
  is read.
- Bytes that follow a complete response end the connection: httpcore2 would read them as the next
  response.

A transport carries one exchange at a time, also over HTTP/2, so leaving an exchange early can close
the connection without disturbing another. Nothing else would stop the server: httpcore2 does not
reset an HTTP/2 stream that nobody reads any more.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, Final, cast

import httpcore2
import httpx2

_READ_BYTES: Final = 64 * 1024


class Transport(httpx2.AsyncBaseTransport):
    """Connects at the first request, and again where the server has closed the connection."""

    def __init__(self, tls: ssl.SSLContext | None, proxy: httpx2.Proxy | None) -> None:
        self._network = _Network()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            proxy=_core_proxy(proxy) if proxy else None,
            max_connections=1,
            http2=True,
            network_backend=self._network,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        core_request = httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
            headers=request.headers.raw,
            content=cast(AsyncIterable[bytes], request.stream),
            extensions=request.extensions,
        )
        self._network.has_received = False
        response = await self._pool.handle_async_request(core_request)
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
        if self._network.stream is not None:
            # httpcore2 does not close one whose handshake was cancelled.
            await self._network.stream.aclose()

    @property
    def has_received(self) -> bool:
        """Whether the server has begun to respond to the last request, by HTTP/1.1."""
        return self._network.has_received

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow: nothing waits to be read, and it is not closed."""
        stream = self._network.stream
        return (
            stream is not None
            and not stream.get_extra_info("is_readable")
            and any(
                connection.is_idle() and not _has_leftover(connection)
                for connection in self._pool.connections
            )
        )


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(self._response.aiter_stream()) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


class _Network(httpcore2.AsyncNetworkBackend):
    """Opens the connection's streams: TCP, and TLS within it."""

    def __init__(self) -> None:
        self._backend = httpcore2.AnyIOBackend()
        # The stream opened last, which is the innermost.
        self.stream: _Stream | None = None
        self.has_received = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return self.opened(stream)

    def opened(self, stream: httpcore2.AsyncNetworkStream) -> "_Stream":
        self.stream = _Stream(self, stream)
        return self.stream


class _Stream(httpcore2.AsyncNetworkStream):
    def __init__(self, network: _Network, inner: httpcore2.AsyncNetworkStream) -> None:
        self._network = network
        self._inner = inner
        self._tls: ssl.SSLObject | None = inner.get_extra_info("ssl_object")
        # HTTP/2 servers send frames at any time; httpcore2 reads them while it sends.
        self._is_http2 = self._tls is not None and self._tls.selected_alpn_protocol() == "h2"
        # Reads the server's response while the request is still being sent.
        self._early: asyncio.Task[bytes] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        early, self._early = self._early, None
        data = await (early or self._inner.read(max_bytes, timeout))
        if data:
            self._network.has_received = not self._is_http2
        elif self._is_cut_off():
            raise httpcore2.ReadError("TLS ended without close_notify")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """
        Raises:
            httpcore2.WriteError: also if the server responded or closed the connection in the
            meantime; httpcore2 then reads the response.
        """
        if self._is_http2 or not buffer:
            await self._inner.write(buffer, timeout)
            return
        if self._early is None:
            self._early = asyncio.ensure_future(self._inner.read(_READ_BYTES))
        writing = asyncio.ensure_future(self._inner.write(buffer, timeout))
        try:
            if not self._early.done():
                await asyncio.wait({writing, self._early}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                raise httpcore2.WriteError("the server did not wait for the whole request")
        finally:
            await _cancel(writing)
        writing.result()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return self._network.opened(
            await self._inner.start_tls(ssl_context, server_hostname, timeout)
        )

    async def aclose(self) -> None:
        if self._early is not None:
            await _cancel(self._early)
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _is_cut_off(self) -> bool:
        """Whether TLS ended without its peer's close_notify, by whether it can be shut down."""
        if self._tls is None:
            return False
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return True
        return False


def tls_context(ca_file: str = "") -> ssl.SSLContext:
    """The TLS settings, which trust the certificates in `ca_file`, or the system's.

    Raises:
        OSError: the file cannot be used.
    """
    # httpx2 reads SSL_CERT_FILE and SSL_CERT_DIR, then what the system trusts (macOS: keychain).
    own = ssl.create_default_context(cafile=ca_file) if ca_file else None
    context = own or httpx2.create_ssl_context()
    # With this option, which only OpenSSL 3 has, a connection that was cut off looks like one that
    # was closed in order.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


def _core_proxy(proxy: httpx2.Proxy) -> httpcore2.Proxy:
    return httpcore2.Proxy(
        str(proxy.url),
        auth=proxy.raw_auth,
        ssl_context=tls_context() if proxy.url.scheme == "https" else None,
    )


def _has_leftover(connection: Any) -> bool:
    """Whether an HTTP/1.1 connection holds bytes that came after its last response.

    httpcore2 has no public way to ask.
    """
    while (inner := getattr(connection, "_connection", None)) is not None:
        connection = inner
    state = getattr(connection, "_h11_state", None)
    return state is not None and bool(state.trailing_data[0])


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Ends a task, whose outcome does not matter."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
