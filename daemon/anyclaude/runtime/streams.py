"""Streamed responses of workers, over a unix socket of their own beside the gRPC one.

Each connection carries one call: one request, then its events, each prefixed by a 4-byte length
(big endian). Length 0 marks a complete response; any other end means that the worker died. Closing
the connection cancels the call. Events that are ready together are sent in one write, since waking
the other process takes some tenths of a millisecond, and one more event far less.

gRPC carries everything else. It is too slow for this: its asyncio side passes each message through
three threads at either end, which was most of a token's delay between worker and front end.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NoReturn, cast

import structlog
from google.protobuf.message import DecodeError

from anyclaude.runtime.channels import MAX_MESSAGE_BYTES
from anyclaude.runtime.sockets import keep_listening
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger(__name__)

END: Final = b"\0\0\0\0"
# How far a sender may run ahead of a slow receiver at each end, the kernel's buffers apart.
HIGH_WATER_BYTES: Final = 64 * 1024
_LENGTH: Final = struct.Struct(">I")
# macOS's default for a unix socket is 8 KiB; a request of Claude Code has about 100 KiB.
_KERNEL_BUFFER_BYTES: Final = 256 * 1024
_BACKLOG: Final = 1024
_BUG: Final = worker.Failed(
    status=500,
    type="api_error",
    message="The worker failed on this request; `anyclaudectl logs` says more.",
)

# Sends events that are ready together, and waits while the caller is behind.
Emit = Callable[[Iterable[worker.GenerateResponse]], Awaitable[None]]
Handler = Callable[[worker.GenerateRequest, Emit], Awaitable[None]]


class MessageTooLargeError(Exception):
    """A message, or a length that announces one, is larger than `MAX_MESSAGE_BYTES`."""


class _CallerGoneError(Exception):
    """The caller has closed the connection."""


def stream_socket(socket_path: Path | str) -> Path:
    """The socket for streams of the worker whose gRPC socket is `socket_path`."""
    return Path(socket_path).with_suffix(".stream")


def framed(message: worker.GenerateRequest | worker.GenerateResponse) -> bytes:
    """The message, prefixed by its length; raises MessageTooLargeError."""
    payload = message.SerializeToString()
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Splits received bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that `data` completes, without their lengths; END is an empty one.

        Raises:
            MessageTooLargeError
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > MAX_MESSAGE_BYTES:
                raise MessageTooLargeError
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            payload = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            yield payload


class FlowControl:
    """Back-pressure of one connection, in both directions (after uvicorn's class of this name)."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_writable = asyncio.Event()
        self._is_writable.set()
        self._is_read_paused = False
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def pause_reading(self) -> None:
        if not self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._is_writable.clear()

    def resume_writing(self) -> None:
        self._is_writable.set()

    async def drain(self) -> None:
        """Waits while more than `HIGH_WATER_BYTES` are not yet sent."""
        await self._is_writable.wait()


class StreamProtocol(asyncio.Protocol):
    """What both ends of a connection share: frames in, and back-pressure."""

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(self) -> None:
        self.frames = Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        connection = self.transport.get_extra_info("socket")
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER_BYTES)
        self.flow = FlowControl(self.transport)

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()


class StreamServer:
    """Serves the calls of `Generate` on one socket."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._calls: set[_Call] = set()

    async def start(self) -> None:
        """Listens on the path, which only this user can connect to; when called again, anew."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        previous = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(previous)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Call(self._handler, self._calls), sock=listener, backlog=_BACKLOG
        )

    async def keep_listening(self) -> NoReturn:
        """Listens anew whenever the socket was removed; runs until cancelled."""
        await keep_listening(self._path, self.start)

    async def stop(self, grace_seconds: float) -> None:
        """Accepts no new call, and cancels those that still run after `grace_seconds`."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        tasks = [call.task for call in self._calls if call.task is not None]
        for call in list(self._calls):
            call.close_if_idle()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Call(StreamProtocol):
    """The worker's end of one connection."""

    def __init__(self, handler: Handler, calls: set["_Call"]) -> None:
        super().__init__()
        self._handler = handler
        self._calls = calls
        self.task: asyncio.Task[None] | None = None

    def close_if_idle(self) -> None:
        """Closes the connection of a caller that has not sent its request."""
        if self.task is None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._calls.add(self)

    def data_received(self, data: bytes) -> None:
        if self.task is not None:
            # A caller sends one request: more bytes break the protocol.
            self.task.cancel()
            return
        try:
            for payload in self.frames.feed(data):
                request = worker.GenerateRequest.FromString(payload)
                self.task = asyncio.get_running_loop().create_task(self._run(request))
                # Runs also when the task is cancelled before it begins.
                self.task.add_done_callback(lambda _: self.transport.close())
                return
        except (DecodeError, MessageTooLargeError) as error:
            log.error("call cannot be read", why=type(error).__name__)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calls.discard(self)
        if self.task is not None:
            self.task.cancel()

    async def _run(self, request: worker.GenerateRequest) -> None:
        try:
            await self._handler(request, self._emit)
        except _CallerGoneError:
            return
        except Exception:
            # A defect ends one request, not the others; the error names the log to read.
            log.exception("request failed", request_id=request.request_id)
            self.transport.write(framed(worker.GenerateResponse(failed=_BUG)))
        self.transport.write(END)

    async def _emit(self, events: Iterable[worker.GenerateResponse]) -> None:
        if self.transport.is_closing():
            raise _CallerGoneError
        self.transport.write(b"".join(map(framed, events)))
        await self.flow.drain()
