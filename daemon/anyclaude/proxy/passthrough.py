"""Requests of a passthrough mode: bytes and headers through, both ways, unread.

Only what belongs to one connection is ours: hop-by-hop headers go (the relay drops them), and the
token of this service, which is nobody else's business, is taken out. An answer that breaks off
breaks the connection: a stream must never look whole when it is not.
"""

import asyncio
import hmac
from collections.abc import Iterator

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import TYPE_BY_STATUS, ApiError
from anyclaude.messages.identity import identify_by_headers
from anyclaude.proxy.admission import Admission
from anyclaude.proxy.exchange import Exchange
from anyclaude.proxy.inbound import ClientGoneError
from anyclaude.proxy.routes import MODE_HEADER, RouteTable
from anyclaude.proxy.workers import Forwarding, Workers
from anyclaude.runtime.settings import ServerSettings
from anyclaude.worker.v1 import worker_pb2 as worker


class Passthrough:
    def __init__(
        self,
        settings: ServerSettings,
        routes: RouteTable,
        workers: Workers,
        admission: Admission,
        token: bytes | None,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._workers = workers
        self._admission = admission
        self._token = token

    def takes(self, exchange: Exchange) -> bool:
        """Whether the request's mode is a passthrough one, by the routes as they are now."""
        return self._routes.passes_through(_mode_of(exchange))

    async def forward(self, exchange: Exchange) -> None:
        """Answers with what the mode's server answers.

        Raises:
            ApiError: no answer began, or it broke off.
            ClientGoneError: the client left first.
        """
        with self._admission.slot():
            route = await self._routes.ready(_mode_of(exchange), self._accept_deadline())
            exchange.take(route)
            exchange.hear(route)
            exchange.extra_headers[MODE_HEADER] = route.mode
            exchange.record.identity.CopyFrom(identify_by_headers(exchange.headers))
            async with self._workers.forward(route) as call:
                await self._exchange(exchange, route, call)

    async def _exchange(self, exchange: Exchange, route: frontend.Route, call: Forwarding) -> None:
        """Both directions at once, to the end of the answer or the client's leaving."""
        up = asyncio.ensure_future(self._up(exchange, route, call))
        down = asyncio.ensure_future(_down(exchange, call, up))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            # The upward direction ends by itself only where there is nobody left to answer, or
            # with the end of the answer, which the downward one has yet to return from.
            if not down.done() and not exchange.answered:
                up.result()
            else:
                await down
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(self, exchange: Exchange, route: frontend.Route, call: Forwarding) -> None:
        """The request, then the watch for the client's leaving.

        Raises:
            ClientGoneError
            ApiError: 408, the body stopped arriving.
        """
        head = worker.ForwardRequestHead(
            request_id=exchange.request_id,
            method=exchange.method,
            path=exchange.raw_path,
            query=exchange.query,
            headers=self._headers(exchange),
            mode=route.mode,
        )
        taken = await call.send(worker.ForwardRequest(head=head))
        while taken and exchange.inbound.has_unread_body:
            taken = await call.send(worker.ForwardRequest(body=await exchange.inbound.next_chunk()))
        await call.end()
        if taken:
            await exchange.inbound.wait_gone()
            if not exchange.answered:
                raise ClientGoneError
        else:
            # The answer is on its way; what is left of the body is read after it.
            await asyncio.Event().wait()

    def _headers(self, exchange: Exchange) -> Iterator[worker.HttpHeader]:
        for name, value in exchange.headers.raw:
            # Answered by this process already.
            if name != b"expect" and not self._is_own_token(name, value):
                yield worker.HttpHeader(name=name.decode("latin-1"), value=value.decode("latin-1"))

    def _is_own_token(self, name: bytes, value: bytes) -> bool:
        if self._token is None or name not in (b"authorization", b"x-api-key"):
            return False
        offered = value.partition(b" ")[2].strip() if name == b"authorization" else value
        return hmac.compare_digest(offered, self._token)

    def _accept_deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._settings.accept_wait_seconds


async def _down(exchange: Exchange, call: Forwarding, up: "asyncio.Future[None]") -> None:
    part = await call.next()
    if part is None or not part.HasField("head"):
        raise ApiError(500, "The relay worker ended without an answer.")
    await _send_head(exchange, part.head)
    while (part := await call.next()) is not None:
        exchange.note_first_content()
        await exchange.send_chunk(part.body)
    if exchange.inbound.has_unread_body:
        # A connection closed under a client that still sends would lose the answer.
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        await exchange.inbound.drain()
    await exchange.send_end()


async def _send_head(exchange: Exchange, head: worker.ForwardResponseHead) -> None:
    headers = [
        (header.name.lower().encode("latin-1"), header.value.encode("latin-1"))
        for header in head.headers
    ]
    if any(name == b"request-id" for name, _ in headers):
        # Theirs is the one that support will ask for.
        exchange.extra_headers.pop("request-id")
    if exchange.inbound.has_unread_body:
        headers.append((b"connection", b"close"))
    if head.status >= 400:
        exchange.note_status(TYPE_BY_STATUS.get(head.status, "api_error"))
    await exchange.send({"type": "http.response.start", "status": head.status, "headers": headers})


def _mode_of(exchange: Exchange) -> str:
    return exchange.headers.get(MODE_HEADER, "").strip()
