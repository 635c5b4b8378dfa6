"""An SSE answer: named events, written one by one, and pings while nothing else is sent.

Each write waits until the connection takes it, so a slow client slows the worker down instead of
filling memory. The clock of the pings is the loop's: it runs while the worker is silent.
"""

import asyncio

from pydantic_core import to_json
from starlette.types import Send

from anyclaude.messages.events import PING, Event

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


class EventStream:
    def __init__(self, send: Send, ping_interval_seconds: float) -> None:
        self._send = send
        self._ping_interval_seconds = ping_interval_seconds
        self._last_sent = 0.0

    async def open(self) -> None:
        """Sends the head of the answer: 200."""
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        self._note_sent()

    async def send(self, events: list[Event]) -> None:
        if events:
            await self._write(b"".join(encode(event) for event in events))

    async def ping(self) -> None:
        await self._write(encode(PING))

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    def seconds_to_ping(self) -> float:
        """How long the silence may still last."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self._last_sent + self._ping_interval_seconds - now)

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._note_sent()

    def _note_sent(self) -> None:
        self._last_sent = asyncio.get_running_loop().time()


def encode(event: Event) -> bytes:
    """One frame. ASCII only: some clients split lines at every line end that Unicode knows."""
    return b"event: %b\ndata: %b\n\n" % (
        event["type"].encode(),
        to_json(event, ensure_ascii=True),
    )
