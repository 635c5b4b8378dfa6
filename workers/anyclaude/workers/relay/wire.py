"""HTTP to one server: one request out, its answer in pieces, each wait bounded.

Invariants:
- Nothing of the environment has a say: no proxy, no netrc; no redirect is followed, since it could
  carry a prompt and a key to another host; no cookie is kept. Those are a client's work: here is
  its transport alone.
- A request is sent again only when its connection broke before the first byte of the answer.
- Leaving `send` closes the connection unless the answer was read to its end: the server learns at
  once that nobody listens.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx

from anyclaude.workers.relay.failures import (
    Party,
    bad_certificates,
    connect_timeout,
    explain_transport,
    silence,
)

_MAX_ERROR_BYTES: Final = 1024 * 1024
# Many streams may run beside short calls; idle connections are worth keeping for a while.
_LIMITS: Final = httpx.Limits(max_connections=256, max_keepalive_connections=16)
_RETRY_PAUSE_SECONDS: Final = 0.05

Headers = list[tuple[bytes, bytes]]


class Answer:
    """The head of an answer, and its body to be read."""

    def __init__(
        self, response: httpx.Response, party: Party, patience_seconds: float | None = None
    ) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.raw_headers: Headers = list(response.headers.raw)
        self._response = response
        self._party = party
        # Content has come: from now on a pause is a silence, before it is the server's work.
        self.begun = False
        # Longest silence, in place of the settings'.
        self.patience_seconds = patience_seconds

    @property
    def is_event_stream(self) -> bool:
        return "text/event-stream" in self.headers.get("content-type", "")

    async def chunks(self, *, raw: bool = False) -> AsyncGenerator[bytes, None]:
        """The body as it comes, decompressed unless `raw`.

        Raises:
            UpstreamFault: it broke, or stopped.
        """
        body = self._response.aiter_raw() if raw else self._response.aiter_bytes()
        while True:
            seconds = self._patience_seconds
            try:
                async with asyncio.timeout(seconds):
                    chunk = await anext(body, None)
            except TimeoutError:
                raise silence(self._party, seconds, begun=self.begun) from None
            except httpx.RequestError as error:
                raise explain_transport(error, self._party) from None
            if chunk is None:
                return
            yield chunk

    async def read(self) -> bytes:
        """A body that is small: an error, or a whole answer."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if not self.is_ok and len(body) > _MAX_ERROR_BYTES:
                break
        return bytes(body)

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    @property
    def _patience_seconds(self) -> float:
        settings = self._party.settings
        if self.patience_seconds is not None:
            return self.patience_seconds
        return settings.idle_timeout_seconds if self.begun else settings.first_byte_timeout_seconds


class Wire:
    """The connections to one server."""

    def __init__(
        self, party: Party, transport: Callable[[], httpx.AsyncBaseTransport] | None = None
    ) -> None:
        """
        Args:
            party: the server.
            transport: in place of real connections, for tests.
        """
        self._party = party
        self._make_transport = transport or self._real_transport
        self._transport: httpx.AsyncBaseTransport | None = None

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        patience_seconds: float | None = None,
    ) -> AsyncIterator[Answer]:
        """Sends a request to `path` below the server's root and gives its answer, once begun.

        Args:
            method: of HTTP.
            path: with its query.
            headers: all of them, but for Host and the length of `body`.
            body: whole, or in pieces.
            patience_seconds: longest silence, in place of the settings'.

        Raises:
            UpstreamFault: no answer began.
        """
        seconds = patience_seconds or self._party.settings.first_byte_timeout_seconds
        response = await self._begin(method, path, headers, body, seconds)
        try:
            yield Answer(response, self._party, patience_seconds)
        finally:
            await response.aclose()

    async def _begin(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        seconds: float,
    ) -> httpx.Response:
        # A body that comes in pieces is gone once sent.
        tries = 1 + (0 if isinstance(body, AsyncIterator) else self._party.settings.retries)
        while True:
            tries -= 1
            try:
                async with asyncio.timeout(seconds):
                    return await self._open().handle_async_request(
                        self._request(method, path, headers, body)
                    )
            except TimeoutError:
                raise silence(self._party, seconds, begun=False) from None
            except httpx.ConnectTimeout:
                raise connect_timeout(self._party) from None
            except httpx.TransportError as error:
                # A refused or impossible connection is no better a moment later.
                if not tries or isinstance(error, httpx.ConnectError):
                    raise explain_transport(error, self._party) from None
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)

    def _request(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> httpx.Request:
        """With the headers given and no others, as a client would add."""
        timeout = httpx.Timeout(None, connect=self._party.settings.connect_timeout_seconds)
        return httpx.Request(
            method,
            self._party.settings.root + path,
            headers=headers,
            content=body,
            extensions={"timeout": timeout.as_dict()},
        )

    def _open(self) -> httpx.AsyncBaseTransport:
        # Late: a context for TLS takes a while, and most servers are never asked.
        if self._transport is None:
            self._transport = self._make_transport()
        return self._transport

    def _real_transport(self) -> httpx.AsyncBaseTransport:
        settings = self._party.settings
        if not settings.base_url.startswith("https"):
            return httpx.AsyncHTTPTransport(verify=False, trust_env=False, limits=_LIMITS)
        try:
            verify = (
                ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
            )
        except OSError as error:
            raise bad_certificates(self._party, error) from None
        return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=_LIMITS)
