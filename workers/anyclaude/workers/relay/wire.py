"""HTTP to one server: one request out, its answer in pieces, each wait bounded.

Invariants:
- Nothing of the environment has a say: no proxy, no netrc; no redirect is followed, since it could
  carry a prompt and a key to another host; no cookie is kept; no header is added but Host and those
  that frame the body.
- A request is sent again only when its connection broke before the first byte of the answer.
- Leaving `send` closes the connection unless the answer was read to its end: the server learns at
  once that nobody listens.

aiohttp, since it parses in C: each word of a stream takes this process a third less time than with
httpx, whose layers are all in Python, and the first word comes 0.4 ms sooner.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, Final

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from anyclaude.runtime.alarm import Alarm
from anyclaude.workers.relay.failures import (
    Party,
    bad_certificates,
    connect_timeout,
    explain_transport,
    silence,
)

_MAX_ERROR_BYTES: Final = 1024 * 1024
# Many streams may run beside short calls; an idle connection is worth keeping for a while.
_MAX_CONNECTIONS: Final = 256
_KEEP_IDLE_SECONDS: Final = 5.0
_RETRY_PAUSE_SECONDS: Final = 0.05
# A larger body is written in pieces, so that the loop turns meanwhile.
_MAX_WHOLE_BYTES: Final = 512 * 1024
# Of an answer's head; more is no answer.
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_HEADERS: Final = 256
# What the library would add by itself.
_NOT_ADDED: Final = ("accept", "accept-encoding", "content-type", "user-agent")

Headers = list[tuple[bytes, bytes]]


class _Response(aiohttp.ClientResponse):
    """Knows how its connection ended: the library takes a reset for the end of a body without a
    declared length, which half a body would pass for a whole one by."""

    _end: asyncio.Future[None] | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        if connection.protocol is not None and (end := connection.protocol.closed) is not None:
            self._end = end
            # Whoever does not ask need not be told.
            end.add_done_callback(lambda end: end.cancelled() or end.exception())
        return await super().start(connection)

    def broke_off(self) -> BaseException | None:
        """What ended a body that only its connection's end completes."""
        declared = "content-length" in self.headers or "transfer-encoding" in self.headers
        if declared or self._end is None or not self._end.done() or self._end.cancelled():
            return None
        return self._end.exception()


class Answer:
    """The head of an answer, and its body to be read."""

    def __init__(
        self, response: _Response, party: Party, patience_seconds: float | None = None
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.raw_headers: Headers = list(response.raw_headers)
        self._response = response
        self._party = party
        # Content has come: from now on a pause is a silence, before it is the server's work.
        self.begun = False
        # Longest silence, in place of the settings'.
        self.patience_seconds = patience_seconds
        self._alarm = Alarm(lambda: response.content.set_exception(TimeoutError()))

    @property
    def is_event_stream(self) -> bool:
        return "text/event-stream" in self.headers.get("content-type", "")

    async def next(self) -> bytes:
        """The next piece of the body, empty at its end.

        Raises:
            UpstreamFault: it broke, or stopped.
        """
        seconds = self._patience_seconds
        try:
            self._alarm.begin(seconds)
            chunk = await self._response.content.readany()
            self._alarm.end()
        except TimeoutError:
            raise silence(self._party, seconds, begun=self.begun) from None
        except (aiohttp.ClientError, OSError) as error:
            raise explain_transport(error, self._party) from None
        if not chunk and (cause := self._response.broke_off()):
            raise explain_transport(cause, self._party)
        return chunk

    async def read(self) -> bytes:
        """A body that is small: an error, or a whole answer."""
        body = bytearray()
        while chunk := await self.next():
            body += chunk
            if not self.is_ok and len(body) > _MAX_ERROR_BYTES:
                break
        return bytes(body)

    def close(self) -> None:
        """Hangs up, unless the body was read to its end."""
        self._alarm.close()
        self._response.close()

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    @property
    def _patience_seconds(self) -> float:
        settings = self._party.settings
        if self.patience_seconds is not None:
            return self.patience_seconds
        return settings.idle_timeout_seconds if self.begun else settings.first_byte_timeout_seconds


def _payload(body: bytes | AsyncIterator[bytes] | None) -> Any:
    """What leaves with the head in one write, or in pieces where it is large."""
    if isinstance(body, bytes) and len(body) > _MAX_WHOLE_BYTES:
        return BytesIO(body)
    return body


class Wire:
    """The connections to one server."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        patience_seconds: float | None = None,
        decompress: bool = True,
    ) -> AsyncIterator[Answer]:
        """Sends a request to `path` below the server's root and gives its answer, once begun.

        Args:
            method: of HTTP.
            path: with its query.
            headers: all of them, but for Host and the length of `body`.
            body: whole, or in pieces.
            patience_seconds: longest silence, in place of the settings'.
            decompress: an answer that comes compressed; otherwise it is given as it is.

        Raises:
            UpstreamFault: no answer began.
        """
        seconds = patience_seconds or self._party.settings.first_byte_timeout_seconds
        response = await self._begin(method, path, headers, body, seconds, decompress=decompress)
        answer = Answer(response, self._party, patience_seconds)
        try:
            yield answer
        finally:
            answer.close()

    async def _begin(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        seconds: float,
        *,
        decompress: bool,
    ) -> _Response:
        # A body that comes in pieces is gone once sent.
        tries = 1 + (0 if isinstance(body, AsyncIterator) else self._party.settings.retries)
        session = self._open()
        url = URL(self._party.settings.root + path, encoded=True)
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        while True:
            tries -= 1
            try:
                async with asyncio.timeout(seconds):
                    response = await session.request(
                        method,
                        url,
                        headers=told,
                        data=_payload(body),
                        auto_decompress=decompress,
                        allow_redirects=False,
                    )
                    assert isinstance(response, _Response)
                    return response
            except aiohttp.ConnectionTimeoutError:
                raise connect_timeout(self._party) from None
            except TimeoutError:
                raise silence(self._party, seconds, begun=False) from None
            except (aiohttp.ClientError, OSError) as error:
                # A refused or impossible connection is no better a moment later.
                if not tries or isinstance(error, aiohttp.ClientConnectorError):
                    raise explain_transport(error, self._party) from None
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)

    def _open(self) -> aiohttp.ClientSession:
        # Late: a context for TLS takes a while, and most servers are never asked.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._certificates(),
                    limit=_MAX_CONNECTIONS,
                    keepalive_timeout=_KEEP_IDLE_SECONDS,
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._party.settings.connect_timeout_seconds
                ),
                skip_auto_headers=_NOT_ADDED,
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=_Response,
                trust_env=False,
                max_line_size=_MAX_HEADER_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
                max_headers=_MAX_HEADERS,
            )
        return self._session

    def _certificates(self) -> ssl.SSLContext | bool:
        """Those that the server's must be signed with: the settings', or the system's."""
        settings = self._party.settings
        if not settings.ca_file:
            return True
        try:
            return ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise bad_certificates(self._party, error) from None
