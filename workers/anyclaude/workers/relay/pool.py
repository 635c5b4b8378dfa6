"""The connections to one server: made, kept for a while between exchanges, and closed.

Invariants:
- A connection that the server closed, or on which it speaks unasked, is not kept.
- A name of several addresses is reached by the first that answers (RFC 8305, section 5); of the
  other attempts nothing is left.
"""

import asyncio
import ipaddress
import ssl
from contextlib import suppress
from itertools import chain, zip_longest
from socket import SOCK_STREAM, gaierror
from typing import Any, Final
from urllib.parse import urlsplit

from anyclaude.workers.relay.http1 import Connection

# Many streams may run beside short calls; an idle connection is worth keeping for a while.
_MAX_IDLE: Final = 256
_KEEP_IDLE_SECONDS: Final = 5.0
# A head start of each address before the next is tried as well.
_HEAD_START_SECONDS: Final = 0.25
_PORTS: Final = {"http": 80, "https": 443}


class Pool:
    """Connections to the server at `url`; `tls` is for one of https."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        """
        Raises:
            ValueError: the address is none.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        self._host = host if host.isascii() else host.encode("idna").decode()
        self._port = port or _PORTS[parts.scheme]
        # Certificates may be named for a server without TLS.
        self._tls = tls if parts.scheme == "https" else None
        # The last used at the end.
        self._idle: list[Connection] = []
        self._is_closed = False
        name = f"[{self._host}]" if ":" in self._host else self._host
        # The value of Host (RFC 9110, section 7.2).
        self.authority = name if port in (None, _PORTS[parts.scheme]) else f"{name}:{port}"
        # Stands before every path.
        self.prefix = parts.path

    def take(self) -> Connection | None:
        """One that is open and idle."""
        return self._idle.pop() if self._idle else None

    def give(self, connection: Connection) -> None:
        """Takes one back after its exchange, to keep it or to close it."""
        if connection.can_rest and len(self._idle) < _MAX_IDLE and not self._is_closed:
            connection.rest(_KEEP_IDLE_SECONDS, self._drop)
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Closes what is idle, and each other one after its exchange."""
        self._is_closed = True
        for connection in list(self._idle):
            self._drop(connection)

    async def connect(self) -> Connection:
        """
        Raises:
            OSError: no address of the server takes a connection.
        """
        hosts = await self._addresses()
        if len(hosts) == 1:
            return await self._connect_to(hosts[0])
        return await self._first_of(hosts)

    def _drop(self, connection: Connection) -> None:
        self._idle.remove(connection)
        connection.close()

    async def _addresses(self) -> list[str]:
        """Where the server may be, one family and the other in turn; itself if it is an address."""
        with suppress(ValueError):
            ipaddress.ip_address(self._host)
            return [self._host]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=SOCK_STREAM)
        except UnicodeError as error:
            raise gaierror(str(error)) from None
        # As the resolver sorts them, the preferred family first.
        preferred = [_literal(address) for family, *_, address in found if family == found[0][0]]
        others = [_literal(address) for family, *_, address in found if family != found[0][0]]
        in_turn = dict.fromkeys(chain.from_iterable(zip_longest(preferred, others)))
        return [host for host in in_turn if host is not None]

    async def _connect_to(self, host: str) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection,
            host,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        return connection

    async def _first_of(self, hosts: list[str]) -> Connection:
        # uvloop's own way is one address after the other, each until the system gives it up.
        attempts: list[asyncio.Task[Connection]] = []
        pending: set[asyncio.Task[Connection]] = set()
        errors: list[Exception] = []
        try:
            while pending or len(attempts) < len(hosts):
                if len(attempts) < len(hosts):
                    attempts.append(asyncio.ensure_future(self._connect_to(hosts[len(attempts)])))
                    pending.add(attempts[-1])
                is_last = len(attempts) == len(hosts)
                done, pending = await asyncio.wait(
                    pending,
                    timeout=None if is_last else _HEAD_START_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in done:
                    if (error := attempt.exception()) is None:
                        attempts.remove(attempt)
                        return attempt.result()
                    assert isinstance(error, Exception)
                    errors.append(error)
        finally:
            for attempt in attempts:
                attempt.cancel()
                attempt.add_done_callback(_close_late)
        raise OSError("no address takes a connection") from ExceptionGroup("", errors)


def _close_late(attempt: asyncio.Task[Connection]) -> None:
    """Of an attempt that another was faster than."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _literal(address: tuple[Any, ...]) -> str:
    """The address alone, with the interface where it belongs to one (RFC 4007, section 11)."""
    host = str(address[0])
    scope = address[3] if len(address) == 4 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host
