"""The connections to one server: made, kept for a while between exchanges, and closed.

Invariants:
- A connection that the server closed, or on which it speaks unasked, is not kept.
- A name of several addresses is reached by the first that answers (RFC 8305, section 5).
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from socket import SOCK_STREAM, gaierror, socket
from typing import Any, Final
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from anyclaude.relay.http1 import Connection

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
        how: dict[str, Any] = {"ssl": self._tls}
        if self._tls:
            how["server_hostname"] = self._host
        if self._is_address:
            how |= {"host": self._host, "port": self._port}
        else:
            # uvloop's own way is one address after the other, each until the system gives it up.
            how["sock"] = await self._reached()
        _, connection = await asyncio.get_running_loop().create_connection(Connection, **how)
        return connection

    @property
    def _is_address(self) -> bool:
        try:
            ipaddress.ip_address(self._host)
        except ValueError:
            return False
        return True

    async def _reached(self) -> socket:
        """Connected to the first of the server's addresses that answers."""
        addresses = await self._addresses()
        try:
            return await start_connection(addresses, happy_eyeballs_delay=_HEAD_START_SECONDS)
        except RuntimeError as error:
            # uvloop's, of what asyncio says by an OSError.
            raise OSError(str(error)) from None

    async def _addresses(self) -> Sequence[AddrInfoType]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.getaddrinfo(self._host, self._port, type=SOCK_STREAM)
        except UnicodeError as error:
            raise gaierror(str(error)) from None

    def _drop(self, connection: Connection) -> None:
        self._idle.remove(connection)
        connection.close()
