"""Answers that stream, over a unix socket of their own beside a worker's gRPC one.

One connection a call: the request, then the events of its answer, each behind its length in four
bytes, big endian. A length of 0 ends an answer; a connection that ends without it lost its worker.
Who hangs up wants no more. Events that are ready together leave in one write: a wake-up of the
process at the other end takes some tenths of a millisecond, an event next to nothing.

gRPC carries everything else. It is too slow for this: its asyncio side hands each message through
three threads at either end, which is most of what a word takes from the worker to the front end.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, cast

import structlog
from google.protobuf.message import DecodeError

from anyclaude.runtime.channels import MAX_MESSAGE_BYTES
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger(__name__)

END: Final = b"\0\0\0\0"
_LENGTH: Final = struct.Struct(">I")
# What a client that reads slowly lets a worker run ahead by, the kernel's own buffers apart.
_AHEAD_BYTES: Final = 64 * 1024
# macOS gives a unix socket 8 KiB, and a request has a hundred.
_KERNEL_BUFFER_BYTES: Final = 256 * 1024
_BACKLOG: Final = 1024
_BUG: Final = worker.Failed(
    status=500,
    type="api_error",
    message="The worker failed on this request; `anyclaudectl logs` says more.",
)

# Sends events that are ready together, and waits while the caller is behind.
Tell = Callable[[Iterable[worker.GenerateResponse]], Awaitable[None]]
Answers = Callable[[worker.GenerateRequest, Tell], Awaitable[None]]


class MessageTooLargeError(Exception):
    """A length that no message has."""


class _CallerGoneError(Exception):
    """Nobody hears the rest of an answer."""


def stream_socket(socket_path: Path | str) -> Path:
    """Where the worker behind a gRPC socket streams its answers."""
    return Path(socket_path).with_suffix(".stream")


def framed(message: worker.GenerateRequest | worker.GenerateResponse) -> bytes:
    """A message behind its length.

    Raises:
        MessageTooLargeError
    """
    payload = message.SerializeToString()
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError
    return _LENGTH.pack(len(payload)) + payload


def make_room(connection: socket.socket) -> None:
    """Lets a whole request or many words wait in the kernel."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER_BYTES)


class Frames:
    """Bytes in, the messages they complete out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Each message without its length; the end of the answer is an empty one.

        Raises:
            MessageTooLargeError
        """
        if not self._buffer and len(data) > _LENGTH.size and len(data) == _end(data):
            # One message, as words come.
            return (data[_LENGTH.size :],)
        return self._split(data)

    def _split(self, data: bytes) -> Iterator[bytes]:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            end = _end(buffer)
            if len(buffer) < end:
                return
            payload = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            yield payload


def _end(buffer: bytes | bytearray) -> int:
    """Of the first message."""
    (length,) = _LENGTH.unpack_from(buffer)
    if length > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError
    return _LENGTH.size + int(length)


class StreamServer:
    """Answers the calls of `Generate` on one socket."""

    def __init__(self, path: Path, answers: Answers) -> None:
        self._path = path
        self._answers = answers
        self._server: asyncio.Server | None = None
        self._calls: set[_Call] = set()

    async def start(self) -> None:
        """Listens, on a path that is private to this user and whose owner is the caller."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        previous = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(previous)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Call(self._answers, self._calls), sock=listener, backlog=_BACKLOG
        )

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new call, and ends those that run on after `grace_seconds`."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        work = [call.work for call in self._calls if call.work is not None]
        for call in list(self._calls):
            call.close_if_idle()
        if work:
            await asyncio.wait(work, timeout=grace_seconds)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


class _Call(asyncio.Protocol):
    """One connection: its request comes, and the answer leaves."""

    def __init__(self, answers: Answers, calls: set["_Call"]) -> None:
        self._answers = answers
        self._calls = calls
        self._frames = Frames()
        # Done once the caller has taken enough; None while it is not behind.
        self._room: asyncio.Future[None] | None = None
        self.work: asyncio.Task[None] | None = None

    def close_if_idle(self) -> None:
        """Hangs up on a caller that has not asked."""
        if self.work is None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        make_room(self._transport.get_extra_info("socket"))
        self._transport.set_write_buffer_limits(high=_AHEAD_BYTES)
        self._calls.add(self)

    def data_received(self, data: bytes) -> None:
        if self.work is not None:
            # Nothing more is said by a caller: what comes is the end.
            self.work.cancel()
            return
        try:
            for payload in self._frames.feed(data):
                request = worker.GenerateRequest.FromString(payload)
                self.work = asyncio.get_running_loop().create_task(self._run(request))
                # Also after work that was cancelled before it began.
                self.work.add_done_callback(lambda _: self._transport.close())
                return
        except (DecodeError, MessageTooLargeError) as error:
            log.error("call cannot be read", why=type(error).__name__)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calls.discard(self)
        if self.work is not None:
            self.work.cancel()

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def _run(self, request: worker.GenerateRequest) -> None:
        try:
            await self._answers(request, self._tell)
        except _CallerGoneError:
            return
        except Exception:
            # A defect costs one request, not the others, and its caller learns where to look.
            log.exception("answer failed", request_id=request.request_id)
            self._transport.write(framed(worker.GenerateResponse(failed=_BUG)))
        self._transport.write(END)

    async def _tell(self, events: Iterable[worker.GenerateResponse]) -> None:
        if self._transport.is_closing():
            raise _CallerGoneError
        self._transport.write(b"".join(map(framed, events)))
        if self._room is not None:
            await self._room
