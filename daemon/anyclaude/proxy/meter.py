"""What leaves for a client, counted: one that takes nothing is told from one that is slow."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

# Of an answer, not of "100 Continue".
_HEADS: Final = tuple(f"HTTP/1.1 {hundreds}".encode() for hundreds in "2345")


class Meter:
    """A transport that counts what is written to it.

    The head of an answer leaves with what is written next in the same turn of the loop: alone it
    would wake a client that then has nothing to read.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self.written_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        if not self._held and data.startswith(_HEADS):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        held, self._held = self._held, b""
        self._transport.write(held + data if held else data)

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self.write(b"")

    @property
    def taken_bytes(self) -> int:
        """What has left for the client."""
        waiting = len(self._held) + self._transport.get_write_buffer_size()
        return self.written_bytes - waiting


class StallWatch:
    """Tells a client that takes nothing from one that is slow."""

    def __init__(self, meter: Meter, limit_seconds: float, now: Callable[[], float]) -> None:
        self._meter = meter
        self._limit_seconds = limit_seconds
        self._now = now
        self._taken_bytes = 0
        self._since = now()

    def has_stalled(self) -> bool:
        taken = self._meter.taken_bytes
        if taken != self._taken_bytes or taken == self._meter.written_bytes:
            self._taken_bytes = taken
            self._since = self._now()
            return False
        return self._now() - self._since >= self._limit_seconds
