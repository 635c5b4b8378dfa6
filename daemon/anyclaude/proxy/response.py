"""The response to one request: its head, whole bodies, and streams of server-sent events."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from pydantic_core import to_json
from starlette.types import Send

from anyclaude.messages.events import PING, Event

T = TypeVar("T")
RawHeaders = list[tuple[bytes, bytes]]

_EVENT_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # A proxy such as nginx would otherwise collect events before it passes them on.
    (b"x-accel-buffering", b"no"),
]


class Response:
    """Sends each part of a response at once; nothing is buffered here."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        # 0 until the head is sent; afterwards no other status can follow.
        self.status = 0
        self.ended = False
        # Whether it is a stream of whole events, between which clients skip comments.
        self.sends_events = False
        # Added to the head of whatever response is sent.
        self.headers: dict[str, str] = {"request-id": request_id}

    @property
    def begun(self) -> bool:
        return self.status != 0

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Sends the head."""
        self.status = status
        # A response that is passed through keeps the headers of its origin, the date for example.
        own = {name for name, _ in headers}
        added = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        added.append((b"date", _http_date()))
        added = [header for header in added if header[0] not in own]
        message = {"type": "http.response.start", "status": status, "headers": [*headers, *added]}
        await self._send(message)

    async def write(self, data: bytes) -> None:
        """Sends a piece of the body; waits while the client is behind."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Sends the last piece of the body."""
        # Set before sending: the server reports the end of the exchange during the call.
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})

    async def send_empty(self, status: int) -> None:
        await self.start(status, [])
        await self.end()

    async def send_body(
        self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        head = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
        await self.start(status, [(name.encode(), value.encode()) for name, value in head.items()])
        await self.end(body)

    async def send_json(
        self, status: int, content: Any, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        await self.send_body(status, body, "application/json", headers)


class EventStream:
    """A response of named events. Each write waits until the connection accepts it, so a slow
    client slows the worker down instead of filling memory."""

    def __init__(
        self,
        response: Response,
        ping_interval_seconds: float,
        encode: Callable[[Event], bytes],
    ) -> None:
        self._response = response
        self._encode = encode
        self._ping_interval_seconds = ping_interval_seconds
        self._last_sent = 0.0

    async def start(self) -> None:
        """Sends the head, 200, unless it is sent already."""
        if self._response.begun:
            return
        await self._response.start(200, _EVENT_STREAM_HEADERS)
        self._response.sends_events = True
        self._last_sent = asyncio.get_running_loop().time()

    async def send(self, events: list[Event]) -> None:
        if events:
            await self._response.write(b"".join(map(self._encode, events)))
            self._last_sent = asyncio.get_running_loop().time()

    async def ping(self) -> None:
        await self.send([PING])

    async def end(self) -> None:
        await self._response.end()

    async def wait(self, work: Coroutine[Any, Any, T], deadline: float) -> T:
        """The result of `work`; after `deadline` (the loop's clock) pings are sent until then."""
        task = asyncio.ensure_future(work)
        seconds = max(0.0, deadline - asyncio.get_running_loop().time())
        try:
            while not (await asyncio.wait({task}, timeout=seconds))[0]:
                await self.start()
                await self.ping()
                seconds = self.seconds_to_ping()
            return task.result()
        finally:
            task.cancel()

    def seconds_to_ping(self) -> float:
        """How long nothing may be sent before a ping is due, by the loop's clock."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self._last_sent + self._ping_interval_seconds - now)


def encode(event: Event) -> bytes:
    """One frame. ASCII only: some clients split lines at every line end that Unicode knows."""
    return b"event: %b\ndata: %b\n\n" % (
        event["type"].encode(),
        to_json(event, ensure_ascii=True),
    )


def _http_date() -> bytes:
    """Now (RFC 9110, section 5.6.7). The names are English, since no locale is set."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
