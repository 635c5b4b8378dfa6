"""The request side of one HTTP exchange: bounded body, polite refusal, the client's leaving."""

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.types import Message, Receive

from anyclaude.messages.errors import ApiError

# What is read and thrown away of a refused body: most clients send all of it before they read the
# answer, and a connection closed under them shows as a reset instead of our error.
_DRAIN_MAX_BYTES: Final = 256 * 1024 * 1024
_DRAIN_SECONDS: Final = 10.0


class ClientGoneError(Exception):
    """The connection ended before the answer did."""


class Inbound:
    """Reads one request; the head has been parsed, the body arrives by `receive`."""

    def __init__(self, headers: Mapping[str, str], receive: Receive, stall_seconds: float) -> None:
        self._receive = receive
        self._stall_seconds = stall_seconds
        self._declared_bytes = _content_length(headers)
        self._complete = self._declared_bytes == 0 and "transfer-encoding" not in headers
        # Such a client sends its body only once we ask for it.
        self._held_back = headers.get("expect", "").lower() == "100-continue"

    @property
    def has_unread_body(self) -> bool:
        return not self._complete

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            ApiError: 413 when it is larger than the limit, 408 when it stops arriving.
            ClientGoneError: the client left before its end.
        """
        # A declared length spares reading; an untrue or absent one is found by counting.
        if self._declared_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        chunks: list[bytes] = []
        total = 0
        while not self._complete:
            chunk = await self.next_chunk()
            total += len(chunk)
            if total > limit_bytes:
                raise _too_large(limit_bytes)
            chunks.append(chunk)
        return b"".join(chunks)

    async def drain(self) -> None:
        """Reads what is left of a refused body, within bounds."""
        if self._held_back:
            return
        total = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._complete and total < _DRAIN_MAX_BYTES:
                    total += len(await self.next_chunk())
        except (TimeoutError, ApiError):
            return

    async def wait_gone(self) -> None:
        """Returns once the client has closed the connection, or the answer is out."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def next_chunk(self) -> bytes:
        """The next piece of the body.

        Raises:
            ApiError: 408, it stopped arriving.
            ClientGoneError: the client left before its end.
        """
        self._held_back = False
        try:
            async with asyncio.timeout(self._stall_seconds):
                message: Message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                f"The request body stopped arriving for {self._stall_seconds:g} seconds.",
                error_type="timeout_error",
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        self._complete = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body


def _content_length(headers: Mapping[str, str]) -> int:
    # The HTTP parser has refused anything but digits.
    return int(headers.get("content-length", "0"))


def _too_large(limit_bytes: int) -> ApiError:
    return ApiError(413, f"The request body is larger than the maximum of {limit_bytes} bytes.")
