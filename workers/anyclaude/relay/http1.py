"""One connection to a server: HTTP/1.1 (RFC 9112), one exchange at a time.

Invariants:
- Only what the server declared complete is a whole body: its length, its last chunk, or, where it
  declared neither, an orderly end of the connection. A reset is none.
- No more than `_AHEAD_BYTES`, and what one read brings, are held for who takes nothing: then the
  server is not read, and waits.
- It is kept for another exchange only when this one is complete on both sides, and nothing else
  came.

The parser is C and puts a body's pieces into a list by itself: a piece costs one call of Python.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from httptools import HttpParserError, HttpResponseParser

from anyclaude.relay.outgoing import BrokenError, Headers, Request, Upload
from anyclaude.runtime.alarm import Alarm

_AHEAD_BYTES: Final = 64 * 1024
# Of an answer's head; more is no answer.
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_HEADERS: Final = 256
# A larger body is not copied behind its head.
_MAX_JOINED_BYTES: Final = 512 * 1024
_SWITCHING_PROTOCOLS: Final = 101


class Connection(asyncio.Protocol):
    """Its own protocol: what comes wakes whoever waits for it and nobody else."""

    def __init__(self) -> None:
        # Of the answer; 0 until its head is here.
        self.status = 0
        # As they came.
        self.headers: Headers = []
        # Of the body, not taken yet. The parser appends: always the same list.
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append
        # No more comes; `cause` says why if that is too early.
        self.is_over = True
        self.cause: BaseException | None = None
        # Told when the connection ends between exchanges.
        self.on_lost: Callable[[Connection], None] | None = None
        self._is_head = False
        self._keeps_alive = False
        # More came than the answer.
        self._has_extra = False
        self._is_paused = False
        # Since pieces were last taken, with what frames them.
        self._received_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._alarm = Alarm(self._ring)
        # Of a body in pieces.
        self._upload: Upload | None = None
        self._parser = self._new_parser()

    def ask(self, request: Request) -> None:
        """Sends it."""
        self.on_lost = None
        self.is_over = False
        self._is_head = request.method == "HEAD"
        body = request.body
        if not body:
            self._transport.write(request.head)
        elif not isinstance(body, bytes):
            self._transport.write(request.head)
            self._upload = Upload(self._transport, body, request.length, self._end)
        elif len(body) > _MAX_JOINED_BYTES:
            self._transport.writelines((request.head, body))
        else:
            self._transport.write(request.head + body)

    @property
    def has_spoken(self) -> bool:
        """The server has begun to answer."""
        return bool(self.status or self._received_bytes)

    def news(self, seconds: float) -> asyncio.Future[None]:
        """Done when there is more than now, or `seconds` have passed."""
        self._waiting = self._loop.create_future()
        # Its end is not told: a ring that nobody waits for is not heard.
        self._alarm.begin(seconds)
        return self._waiting

    def take(self) -> bytes:
        """What is here of the body; empty at its end.

        Raises:
            OSError, HttpParserError: it broke off.
        """
        pieces = self.pieces
        if not pieces:
            if self.cause is not None:
                raise self.cause
            return b""
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._received_bytes = 0
        if self._is_paused:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return body

    @property
    def can_rest(self) -> bool:
        """Whether another exchange can follow on it."""
        return (
            self._keeps_alive
            and (self._upload is None or self._upload.is_sent)
            and not self._transport.get_write_buffer_size()
            and not (self.pieces or self._has_extra or self._transport.is_closing())
        )

    def rest(self, seconds: float, on_lost: Callable[["Connection"], None]) -> None:
        """Waits for the next exchange, but no longer than `seconds`."""
        # A new parser knows nothing of this exchange, trailers for one.
        self._parser = self._new_parser()
        self._upload = None
        self.status = self._received_bytes = 0
        self.headers = []
        self._keeps_alive = False
        self.on_lost = on_lost
        self._alarm.begin(seconds)

    def close(self) -> None:
        """Ends it at once."""
        self._end(BrokenError("closed"))
        self.on_lost = None
        self._alarm.close()
        self._transport.abort()

    async def leave(self) -> None:
        """Returns when nothing is sent any more."""
        if self._upload is not None:
            await self._upload.cancel()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.is_over:
            self._has_extra = True
            self._tell_lost()
            return
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._has_extra = True
            self._end(error)
        if self.pieces:
            self._wake()
        if self._received_bytes > _AHEAD_BYTES and not self.is_over:
            self._hold()

    def eof_received(self) -> None:
        # Without a declared length the body ends so, in order.
        complete = self.status and not self._is_framed
        self._end(None if complete else BrokenError("the server hung up"))
        self._tell_lost()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._end(exc)
        self.eof_received()
        self.resume_writing()

    def pause_writing(self) -> None:
        if self._upload is not None:
            self._upload.pause()

    def resume_writing(self) -> None:
        if self._upload is not None:
            self._upload.resume()

    # The parser's. What these raise comes out of it as an HttpParserError.

    def on_message_begin(self) -> None:
        if self.is_over:
            raise BrokenError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        # Later ones are trailers, which nobody asks for.
        if not self.status:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            # The answer follows, unless it is in another protocol.
            if status == _SWITCHING_PROTOCOLS:
                raise BrokenError("another protocol")
            self.headers = []
            return
        self._check_size()
        self.status = status
        self._wake()
        if self._is_head:
            # The parser does not know what was asked, and would wait for a body.
            self._end(None)
            raise BrokenError("no body follows")

    def on_message_complete(self) -> None:
        if self.status:
            self._keeps_alive = self._parser.should_keep_alive()
            self._end(None)

    def _new_parser(self) -> HttpResponseParser:
        parser = HttpResponseParser(self)
        # What servers get wrong and no two readers understand differently.
        parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        return parser

    @property
    def _is_framed(self) -> bool:
        names = {name.lower() for name, _ in self.headers}
        return b"content-length" in names or b"transfer-encoding" in names

    def _check_size(self) -> None:
        if len(self.headers) > _MAX_HEADERS:
            raise BrokenError("too many headers")
        if self._received_bytes > _MAX_HEADER_BYTES:
            size = sum(len(name) + len(value) for name, value in self.headers)
            if size > _MAX_HEADER_BYTES:
                raise BrokenError("headers too large")

    def _hold(self) -> None:
        """Much has come that nobody has taken."""
        if not self.pieces:
            # A head, or what frames a body, that has no end.
            self._end(BrokenError("headers too large"))
        elif not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _end(self, cause: BaseException | None) -> None:
        if not self.is_over:
            self.is_over = True
            self.cause = cause
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _ring(self) -> None:
        self._wake()
        self._tell_lost()

    def _tell_lost(self) -> None:
        if self.on_lost is not None:
            self.on_lost(self)
