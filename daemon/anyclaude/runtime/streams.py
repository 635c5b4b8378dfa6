"""Answers that stream, over a unix socket of their own beside a worker's gRPC one.

One connection a call: the request, then the messages of its answer, each behind its length in four
bytes, big endian. A length of 0 ends an answer; a connection that ends without it lost its worker.
Who hangs up wants no more.

gRPC carries everything else. It is too slow for this: its asyncio side hands each message through
three threads at either end, which is most of what a word takes from the worker to the front end.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

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

Answers = Callable[[worker.GenerateRequest], AsyncGenerator[worker.GenerateResponse, None]]


class MessageTooLargeError(Exception):
    """A length that no message has."""


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

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Each message without its length; the end of the answer is an empty one.

        Raises:
            MessageTooLargeError
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            end = _LENGTH.size + _length(buffer)
            if len(buffer) < end:
                return
            payload = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            yield payload


def _length(head: bytes | bytearray) -> int:
    (length,) = _LENGTH.unpack_from(head)
    if length > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError
    return int(length)


class StreamServer:
    """Answers the calls of `Generate` on one socket."""

    def __init__(self, path: Path, answers: Answers) -> None:
        self._path = path
        self._answers = answers
        self._server: asyncio.Server | None = None
        # Connections that have not asked, and those that have.
        self._idle: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens, on a path that is private to this user and whose owner is the caller."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        previous = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(previous)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, backlog=_BACKLOG, limit=_AHEAD_BYTES
        )

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new call, and ends those that run on after `grace_seconds`."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        await _cancel(self._idle)
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace_seconds)
            await _cancel(self._calls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._idle.add(connection)
        try:
            request = await _request(reader, writer)
            self._idle.discard(connection)
            self._calls.add(connection)
            await self._while_connected(request, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            # It left without asking.
            return
        except (DecodeError, MessageTooLargeError) as error:
            log.error("call cannot be read", why=type(error).__name__)
        finally:
            self._idle.discard(connection)
            self._calls.discard(connection)
            writer.close()

    async def _while_connected(
        self,
        request: worker.GenerateRequest,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        answering = asyncio.ensure_future(self._answer(request, writer))
        # Nothing more is said by a caller: what comes is the end.
        left = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            left.cancel()
            await asyncio.gather(answering, left, return_exceptions=True)

    async def _answer(self, request: worker.GenerateRequest, writer: asyncio.StreamWriter) -> None:
        try:
            async with aclosing(self._answers(request)) as messages:
                async for message in messages:
                    writer.write(framed(message))
                    await writer.drain()
        except ConnectionError:
            # The caller is gone.
            return
        except Exception:
            # A defect costs one request, not the others, and its caller learns where to look.
            log.exception("answer failed", request_id=request.request_id)
            writer.write(framed(worker.GenerateResponse(failed=_BUG)))
        writer.write(END)


async def _request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> worker.GenerateRequest:
    make_room(writer.get_extra_info("socket"))
    writer.transport.set_write_buffer_limits(high=_AHEAD_BYTES)
    length = _length(await reader.readexactly(_LENGTH.size))
    return worker.GenerateRequest.FromString(await reader.readexactly(length))


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
