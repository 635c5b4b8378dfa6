"""The context of one request: what the client sent, the response, and the record.

It lives in the ASGI scope from the request's head to the end of the response.
"""

import asyncio
import re
from collections.abc import Coroutine, Mapping
from functools import cached_property
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError, new_request_id
from anyclaude.messages.identity import safe_name
from anyclaude.proxy.body_budget import off_loop
from anyclaude.proxy.content_coding import codings_of, decode, too_large
from anyclaude.proxy.records import RecordBuilder
from anyclaude.proxy.response import EventStream, Response
from anyclaude.proxy.shapes import Shape, shape_of
from anyclaude.runtime.headers import LAUNCH_HEADER, MODE_HEADER
from anyclaude.runtime.settings import ServerSettings
from anyclaude.runtime.timeouts import Timeout

# The client's own id of its request, which every response repeats.
CLIENT_ID_HEADER: Final = "x-request-id"

_SCOPE_KEY: Final = "anyclaude.context"
# How much of a refused body is read and dropped: most clients send all of it before they read the
# response, and a connection closed before that shows as a reset instead of our error.
_DRAIN_MAX_BYTES: Final = 256 * 1024 * 1024
_DRAIN_SECONDS: Final = 10.0
_CLIENT_ID: Final = re.compile(r"[\x21-\x7e]{1,200}")


class ClientGoneError(Exception):
    """The client closed the connection before the response was complete."""


def _decoded(chunks: list[bytes], codings: list[str], limit_bytes: int) -> bytes:
    return decode(b"".join(chunks), codings, limit_bytes)


class RequestContext:
    """One request and its response."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: ServerSettings
    ) -> None:
        self.settings = settings
        self.request_id = new_request_id()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        # As the client sent them, not decoded.
        self.raw_path: str = scope.get("raw_path", self.path.encode()).decode("latin-1")
        self.query: str = scope.get("query_string", b"").decode("latin-1")
        self.headers = Headers(scope=scope)
        # The mode that the client names; empty for the default mode.
        self.mode = self.headers.get(MODE_HEADER, "").strip()
        self.path_params: dict[str, str] = {}
        self.body = RequestBody(self.headers, receive, settings)
        self.response = Response(send, self.request_id)
        client_id = self.headers.get(CLIENT_ID_HEADER, "")
        if _CLIENT_ID.fullmatch(client_id):
            self.response.headers[CLIENT_ID_HEADER] = client_id
        self.shape: Shape = shape_of(self.path)
        launch = self.headers.get(LAUNCH_HEADER, "")
        self.record = RecordBuilder(self.request_id, self.path, safe_name(launch))
        scope[_SCOPE_KEY] = self

    @classmethod
    def of(cls, scope: Scope) -> "RequestContext":
        context = scope[_SCOPE_KEY]
        assert isinstance(context, cls)
        return context

    def accept_deadline(self) -> float:
        """When the wait for a worker's acceptance ends if it begins now (the loop's clock)."""
        return asyncio.get_running_loop().time() + self.settings.accept_wait_seconds

    @cached_property
    def stream(self) -> EventStream:
        """The response as a stream of events, which is not begun yet."""
        interval = self.settings.ping_interval_seconds
        return EventStream(self.response, interval, self.shape.encoder())

    def set_route(self, route: frontend.Route) -> None:
        """Names the route's mode in the response and the record."""
        self.record.mode = route.mode
        self.record.model = route.model.id
        self.response.headers[MODE_HEADER] = route.mode

    async def refuse(self, error: ApiError) -> None:
        """Responds with an error in the envelope of the path's API; it ends a stream that began."""
        self.record.set_error(error)
        if self.response.begun:
            await self.stream.send([error.envelope(self.request_id)])
            await self.stream.end()
            return
        await self.body.drain()
        headers = error.headers()
        if self.body.has_unread:
            headers["connection"] = "close"
        await self.response.send_json(
            error.status, self.shape.error(error, self.request_id), headers
        )

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work`, and cancels it as soon as the client closes the connection.

        Raises:
            ClientGoneError: the client closed it before the response was complete.
        """
        task = asyncio.current_task()
        assert task is not None
        has_left = False

        def cancel(_: object) -> None:
            nonlocal has_left
            if not self.response.ended:
                has_left = True
                task.cancel()

        # The watch runs in its own task, so that `work` starts in this one without delay.
        gone = asyncio.ensure_future(self.body.wait_gone())
        gone.add_done_callback(cancel)
        try:
            await work
        finally:
            gone.remove_done_callback(cancel)
            gone.cancel()
            # When this process is stopping as well, the task stays cancelled.
            if has_left and not task.uncancel():
                raise ClientGoneError


class RequestBody:
    """Reads a request's body within limits of size and time; notices when the client leaves."""

    def __init__(
        self, headers: Mapping[str, str], receive: Receive, settings: ServerSettings
    ) -> None:
        self._receive = receive
        self._limit_bytes = settings.max_body_bytes
        self._stall_seconds = settings.client_stall_seconds
        # The HTTP parser refuses a length that is not digits.
        self._declared_bytes = int(headers.get("content-length", "0"))
        # Whether there is more to read.
        self.has_unread = self._declared_bytes > 0 or "transfer-encoding" in headers
        # A client that expects 100-continue sends its body only once we read it.
        self._awaits_continue = headers.get("expect", "").lower() == "100-continue"
        self._coding = headers.get("content-encoding", "")

    @property
    def most_bytes(self) -> int:
        """The size that it may have: the declared one, if that is not of a compressed form."""
        is_declared = not self._coding and self._declared_bytes
        return min(self._declared_bytes, self._limit_bytes) if is_declared else self._limit_bytes

    async def read(self) -> bytes:
        """The whole body, without the compression that its `content-encoding` names.

        Raises:
            ApiError: 413 when it is larger than the limit, compressed or not; 415 when its coding
                is unknown, 400 when it is not in that coding; 408 when it stops arriving.
            ClientGoneError: the client left before its end.
        """
        codings = codings_of(self._coding)
        # Too large a declared length is refused unread. The bytes are counted in any case, since
        # the length may be missing.
        if self._declared_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        chunks: list[bytes] = []
        total = 0
        while self.has_unread:
            chunk = await self.next_chunk()
            total += len(chunk)
            if total > self._limit_bytes:
                raise too_large(self._limit_bytes)
            chunks.append(chunk)
        # A small compressed body may expand to a large one.
        most_bytes = self._limit_bytes if codings else total
        return await off_loop(most_bytes, _decoded, chunks, codings, self._limit_bytes)

    async def next_chunk(self) -> bytes:
        """The next piece of the body.

        Raises:
            ApiError: 408, it stopped arriving.
            ClientGoneError: the client left before its end.
        """
        self._awaits_continue = False
        try:
            async with Timeout(self._stall_seconds):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                f"The request body stopped arriving for {self._stall_seconds:g} seconds.",
                error_type="timeout_error",
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        self.has_unread = message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def drain(self) -> None:
        """Reads and drops the rest of a refused body, within the same limits."""
        if self._awaits_continue:
            return
        total = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self.has_unread and total < _DRAIN_MAX_BYTES:
                    total += len(await self.next_chunk())
        except (TimeoutError, ApiError):
            return

    async def wait_gone(self) -> None:
        """Returns once the client has closed the connection, or the response is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
