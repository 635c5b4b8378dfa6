"""HTTP to one server: one request out, its answer in pieces, each wait bounded.

Invariants:
- Nothing of the environment has a say: no proxy, no netrc; no redirect is followed, since it could
  carry a prompt and a key to another host; no cookie is kept; no header is added but Host and those
  that frame the body.
- A request is sent again only when its connection broke before the first byte of the answer.
- Leaving `ask` closes the connection unless the answer was read to its end: the server learns at
  once that nobody listens.

A client of our own, since a general one runs so much code for each request: where the CPU has to
fetch all of it anew, aiohttp took 0.47 ms before the first byte left, 0.2 ms from an answer's head
to whoever waits for it, and 0.06 ms for each word.
"""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from socket import gaierror
from typing import Final

from httptools import HttpParserError

from anyclaude.relay.codings import Inflating, inflating
from anyclaude.relay.failures import (
    Party,
    bad_certificates,
    connect_timeout,
    explain_transport,
    silence,
)
from anyclaude.relay.http1 import Connection
from anyclaude.relay.outgoing import Body, Headers, Request, compose
from anyclaude.relay.pool import Pool

__all__ = ["Answer", "Headers", "Wire"]

_MAX_ERROR_BYTES: Final = 1024 * 1024
_RETRY_PAUSE_SECONDS: Final = 0.05


class Answer:
    """The head of an answer, and its body to be read."""

    def __init__(
        self, connection: Connection, party: Party, patience_seconds: float | None = None
    ) -> None:
        self.status = connection.status
        self.raw_headers = connection.headers
        # By names in lower case; what is repeated is one list (RFC 9110, section 5.3).
        self.headers = _by_name(connection.headers)
        self._connection = connection
        self._party = party
        # Content has come: from now on a pause is a silence, before it is the server's work.
        self.begun = False
        # Longest silence, in place of the settings'.
        self.patience_seconds = patience_seconds

    @property
    def is_event_stream(self) -> bool:
        return "text/event-stream" in self.headers.get("content-type", "")

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    async def next(self) -> bytes:
        """All of the body that is here, once something is; empty at its end.

        Raises:
            UpstreamFault: it broke, or stopped.
        """
        connection = self._connection
        if not (connection.pieces or connection.is_over):
            seconds = self._patience_seconds
            await connection.news(seconds)
            if not (connection.pieces or connection.is_over):
                raise silence(self._party, seconds, begun=self.begun)
        try:
            return connection.take()
        except (OSError, HttpParserError) as error:
            raise explain_transport(error, self._party) from None

    async def read(self) -> bytes:
        """A body that is small: an error, or a whole answer."""
        body = bytearray()
        while piece := await self.next():
            body += piece
            if not self.is_ok and len(body) > _MAX_ERROR_BYTES:
                break
        return bytes(body)

    @property
    def _patience_seconds(self) -> float:
        settings = self._party.settings
        if self.patience_seconds is not None:
            return self.patience_seconds
        return settings.idle_timeout_seconds if self.begun else settings.first_byte_timeout_seconds


class _CodedAnswer(Answer):
    """One whose body comes compressed and is given as it was."""

    def __init__(
        self, connection: Connection, party: Party, patience_seconds: float | None, coded: Inflating
    ) -> None:
        super().__init__(connection, party, patience_seconds)
        self._coded = coded

    async def next(self) -> bytes:
        try:
            while not (piece := self._coded.take()):
                received = await super().next()
                if not received:
                    self._coded.finish()
                    return b""
                self._coded.feed(received)
        except zlib.error as error:
            raise explain_transport(error, self._party) from None
        return piece


class Asked:
    """A request that is out, or goes out as soon as there is a connection."""

    def __init__(
        self,
        party: Party,
        pool: Pool,
        request: Request,
        patience_seconds: float | None,
        *,
        decompress: bool,
    ) -> None:
        self._party = party
        self._pool = pool
        self._request = request
        self._patience_seconds = patience_seconds
        self._decompress = decompress
        self._connection = pool.take()
        if self._connection is not None:
            self._connection.ask(request)

    async def answer(self) -> Answer:
        """The answer, once begun.

        Raises:
            UpstreamFault: none did.
        """
        tries = 1 + (self._party.settings.retries if self._request.is_whole else 0)
        while True:
            tries -= 1
            connection = self._connection or await self._connect()
            if not (connection.status or connection.is_over):
                await connection.news(self._seconds)
            if connection.status:
                return self._answer(connection)
            if connection.cause is None:
                raise silence(self._party, self._seconds, begun=False)
            if not tries or connection.has_spoken:
                raise explain_transport(connection.cause, self._party)
            # Where an idle one broke, so have the others: the next is a new one.
            await self.close()
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)

    async def close(self) -> None:
        """Hangs up, unless the answer was read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give(connection)
            await connection.leave()

    @property
    def _seconds(self) -> float:
        return self._patience_seconds or self._party.settings.first_byte_timeout_seconds

    async def _connect(self) -> Connection:
        # No better a moment later, where it is refused or impossible.
        allowed = self._party.settings.connect_timeout_seconds
        try:
            async with asyncio.timeout(min(allowed, self._seconds)):
                self._connection = await self._pool.connect()
        except TimeoutError:
            if self._seconds < allowed:
                raise silence(self._party, self._seconds, begun=False) from None
            raise connect_timeout(self._party) from None
        except OSError as error:
            raise explain_transport(error, self._party) from None
        self._connection.ask(self._request)
        return self._connection

    def _answer(self, connection: Connection) -> Answer:
        answer = Answer(connection, self._party, self._patience_seconds)
        coding = answer.headers.get("content-encoding")
        if coding is None or not self._decompress or (coded := inflating(coding)) is None:
            return answer
        return _CodedAnswer(connection, self._party, self._patience_seconds, coded)


class Wire:
    """The connections to one server."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._pool: Pool | None = None

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: Body = None,
        *,
        patience_seconds: float | None = None,
        decompress: bool = True,
    ) -> AsyncIterator[Asked]:
        """Sends a request to `path` below the server's root.

        Args:
            method: of HTTP.
            path: with its query.
            headers: all of them, but for Host and the length of `body`.
            body: whole, or in pieces.
            patience_seconds: longest silence, in place of the settings'.
            decompress: an answer that comes compressed; otherwise it is given as it is.

        Raises:
            UpstreamFault: the server's address or certificates are none.
            ApiError: the request cannot be sent as HTTP.
        """
        pool = self._open()
        request = compose(method, pool.prefix + path, pool.authority, headers, body)
        asked = Asked(self._party, pool, request, patience_seconds, decompress=decompress)
        try:
            yield asked
        finally:
            await asked.close()

    def _open(self) -> Pool:
        # Late: a context for TLS takes a while, and most servers are never asked.
        if self._pool is None:
            try:
                self._pool = Pool(self._party.settings.root, self._certificates())
            except ValueError as error:
                # It has no address.
                raise explain_transport(gaierror(str(error)), self._party) from None
        return self._pool

    def _certificates(self) -> ssl.SSLContext | None:
        """Those that the server's must be signed with: the settings', or the system's."""
        settings = self._party.settings
        if not (settings.ca_file or settings.root.startswith("https:")):
            return None
        try:
            context = ssl.create_default_context(cafile=settings.ca_file or None)
        except OSError as error:
            raise bad_certificates(self._party, error) from None
        context.set_alpn_protocols(["http/1.1"])
        return context


def _by_name(headers: Headers) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
