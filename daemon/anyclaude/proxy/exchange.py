"""One HTTP request and its answer: identity, headers every answer carries, and its record."""

import asyncio
import json
import secrets
import time
from collections.abc import Coroutine
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.inbound import ClientGoneError, Inbound

_SCOPE_KEY: Final = "anyclaude.exchange"

RawHeaders = list[tuple[bytes, bytes]]


class BrokenAnswerError(Exception):
    """An answer whose head is out cannot be completed: the connection has to break."""


class Exchange:
    """Lives in the ASGI scope from the head of a request to the end of its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, stall_seconds: float) -> None:
        self.request_id = "req_" + secrets.token_hex(12)
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        # As they came, undecoded.
        self.raw_path: str = scope.get("raw_path", self.path.encode()).decode("latin-1")
        self.query: str = scope.get("query_string", b"").decode("latin-1")
        self.headers = Headers(scope=scope)
        self.path_params: dict[str, str] = {}
        self.inbound = Inbound(self.headers, receive, stall_seconds)
        self.record = frontend.RequestRecord(request_id=self.request_id, route=self.path)
        # Added to the answer's head, whichever it becomes.
        self.extra_headers: dict[str, str] = {"request-id": self.request_id}
        self._start_time_ns = time.time_ns()
        self._started_ns = time.monotonic_ns()
        self._first_content_ns = 0
        self._send = send
        self.answered = False
        self._hears_others = False
        scope[_SCOPE_KEY] = self

    @classmethod
    def of(cls, scope: Scope) -> "Exchange":
        exchange = scope[_SCOPE_KEY]
        assert isinstance(exchange, cls)
        return exchange

    @property
    def begun(self) -> bool:
        """The answer's head is out: no other status can follow."""
        return self.record.status != 0

    def take(self, route: frontend.Route) -> None:
        """Notes the route of this request."""
        self.record.mode = route.mode

    def hear(self, route: frontend.Route) -> None:
        """From now on an error may be in the words of another server."""
        self._hears_others = route.relayed

    async def send(self, message: Message) -> None:
        """The ASGI `send` that every answer goes through."""
        if message["type"] == "http.response.start":
            self.record.status = message["status"]
            message = {**message, "headers": self._headers(message.get("headers", []))}
        else:
            # Before sending: the server reports the end of the exchange as soon as it is out.
            self.answered = not message.get("more_body", False)
        await self._send(message)

    def _headers(self, given: RawHeaders) -> RawHeaders:
        own = [(name.encode(), value.encode()) for name, value in self.extra_headers.items()]
        # An answer that was passed through has the date of its maker.
        if not any(name == b"date" for name, _ in given):
            own.append((b"date", _http_date()))
        return [*given, *own]

    async def refuse(self, error: ApiError) -> None:
        """Answers with an error in the API's envelope."""
        self.note_error(error)
        await self.inbound.drain()
        headers = error.headers()
        if self.inbound.has_unread_body:
            headers["connection"] = "close"
        await self.send_json(error.status, error.envelope(self.request_id), headers)

    async def send_json(
        self, status: int, content: Any, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        await self.send_body(status, body, "application/json", headers)

    async def send_body(
        self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        head = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
        raw = [(name.encode(), value.encode()) for name, value in head.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    async def send_chunk(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def send_end(self) -> None:
        await self.send({"type": "http.response.body", "body": b""})

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` and cancels it as soon as the client goes away.

        Raises:
            ClientGoneError: it went away before the answer was out.
        """
        working = asyncio.current_task()
        assert working is not None
        has_left = False

        def leave(_: object) -> None:
            nonlocal has_left
            if not self.answered:
                has_left = True
                working.cancel()

        # In a task of its own, which begins once the work first waits.
        gone = asyncio.ensure_future(self.inbound.wait_gone())
        gone.add_done_callback(leave)
        try:
            await work
        finally:
            gone.remove_done_callback(leave)
            gone.cancel()
            # Unless this process is stopping as well.
            if has_left and not working.uncancel():
                raise ClientGoneError

    def note_error(self, error: ApiError) -> None:
        self.note_status(error.type)
        # Another server's words may quote the prompt, which is kept nowhere.
        self.record.error_message = "" if self._hears_others else error.message

    def note_status(self, error_type: str) -> None:
        """The answer is an error of this type."""
        self.record.outcome = frontend.OUTCOME_FAILED
        self.record.error_type = error_type

    def note_gone(self) -> None:
        # A refused request stays one, though its client did not wait to hear it.
        if not self.record.outcome:
            self.record.outcome = frontend.OUTCOME_CANCELLED

    def note_first_content(self) -> None:
        if not self._first_content_ns:
            self._first_content_ns = self._elapsed_ns()

    def finish(self) -> frontend.RequestRecord:
        """The record of the exchange, which is over."""
        if not self.record.outcome:
            self.record.outcome = frontend.OUTCOME_COMPLETED
        self.record.start_time.FromNanoseconds(self._start_time_ns)
        self.record.duration.FromNanoseconds(self._elapsed_ns())
        if self._first_content_ns:
            self.record.time_to_first_token.FromNanoseconds(self._first_content_ns)
        return self.record

    def _elapsed_ns(self) -> int:
        return time.monotonic_ns() - self._started_ns


def _http_date() -> bytes:
    """Now (RFC 9110, section 5.6.7). The names are English, since no locale is set."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
