"""A request as it leaves: its head in one piece, and a body that comes in pieces.

Invariants:
- Names and values are sent byte for byte; what would end a line or a head early is refused.
- No header is added but Host and one that frames the body.
- A body in pieces goes as fast as the server takes it, and never beyond its declared length.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from anyclaude.messages.errors import invalid_request

Headers = list[tuple[bytes, bytes]]
Body = bytes | AsyncIterator[bytes] | None

# Whose requests have no body unless they say so (RFC 9110, section 8.6).
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class BrokenError(ConnectionError):
    """One side does not keep to HTTP, or left too early."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    # With its blank line.
    head: bytes
    body: Body
    # Of a body in pieces, where the head declares one; otherwise they go as chunks.
    length: int | None

    @property
    def is_whole(self) -> bool:
        """Whether it can be sent again: a body that comes in pieces is gone once sent."""
        return self.body is None or isinstance(self.body, bytes)


def compose(method: str, target: str, authority: str, headers: Headers, body: Body) -> Request:
    """
    Args:
        method: of HTTP.
        target: the whole path, with its query.
        authority: value of Host, unless `headers` name one.
        headers: as they are sent.
        body: whole, or in pieces; its length is declared unless `headers` do.

    Raises:
        ApiError: this is no request of HTTP.
    """
    words = [method.encode(), target.encode(), b"HTTP/1.1"]
    given = {name.lower(): value for name, value in headers}
    lines = [b" ".join(words)]
    if b"host" not in given:
        lines.append(b"Host: " + authority.encode())
    lines += [b"%b: %b" % header for header in headers]
    length = given.get(b"content-length")
    if length is None and (framing := _framing(method, body)):
        lines.append(framing)
    head = b"\r\n".join((*lines, b"", b""))
    _check(words, lines, head, length)
    return Request(method, head, body, None if length is None else int(length))


def _framing(method: str, body: Body) -> bytes:
    """The header that says where the body ends (RFC 9112, section 6)."""
    if isinstance(body, bytes):
        return b"Content-Length: %d" % len(body)
    if body is not None:
        return b"Transfer-Encoding: chunked"
    return b"" if method in _WITHOUT_BODY else b"Content-Length: 0"


def _check(words: Sequence[bytes], lines: list[bytes], head: bytes, length: bytes | None) -> None:
    if lines[0].split() != words:
        raise invalid_request("A path or method that holds white space cannot be sent on.")
    # Only those between the lines, and that before the body.
    ends = len(lines) + 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise invalid_request("A header that holds a line break or a NUL cannot be sent on.")
    if length is not None and not length.isdigit():
        raise invalid_request("A content-length that is no number cannot be sent on.")


class Upload:
    """A body in pieces on its way."""

    def __init__(
        self,
        transport: asyncio.Transport,
        body: AsyncIterator[bytes],
        length: int | None,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.is_sent = False
        self._transport = transport
        self._on_failure = on_failure
        # Done when the server takes more.
        self._room: asyncio.Future[None] | None = None
        self._task = asyncio.ensure_future(self._send(body, length))
        self._task.add_done_callback(self._ended)

    def pause(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def cancel(self) -> None:
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _send(self, body: AsyncIterator[bytes], length: int | None) -> None:
        try:
            await self._send_all(body, length)
        finally:
            if isinstance(body, AsyncGenerator):
                # Its source learns at once that nobody sends it any more.
                await body.aclose()

    async def _send_all(self, body: AsyncIterator[bytes], length: int | None) -> None:
        left = length
        async for piece in body:
            if self._room is not None:
                await self._room
            if self._transport.is_closing():
                return
            if left is not None:
                left -= len(piece)
                if left < 0:
                    # The server would take it for another request.
                    raise BrokenError("the body is longer than declared")
                self._transport.write(piece)
            elif piece:
                # An empty one would be the last.
                self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if left is None and not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")
        self.is_sent = not left

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._on_failure(BrokenError("the request was not sent whole"))
        elif (error := task.exception()) is not None:
            self._on_failure(error)
