"""Requests of a passthrough mode: bytes and headers are forwarded unread, in both directions.

Only two things change. Hop-by-hop headers belong to one connection, so the relay drops them; the
token of this service concerns nobody else, so it is removed here. A response that breaks off breaks
the connection: a stream must never look complete when it is not.
"""

import asyncio
import hmac
from collections.abc import Iterator

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import TYPE_BY_STATUS, ApiError
from anyclaude.messages.identity import identify
from anyclaude.proxy.access import Admission
from anyclaude.proxy.context import ClientGoneError, RequestContext
from anyclaude.proxy.routes import RouteTable
from anyclaude.proxy.workers import Forwarding, Workers
from anyclaude.worker.v1 import worker_pb2 as worker


class Passthrough:
    def __init__(
        self, routes: RouteTable, workers: Workers, admission: Admission, token: bytes | None
    ) -> None:
        self._routes = routes
        self._workers = workers
        self._admission = admission
        self._token = token

    def serves(self, context: RequestContext) -> bool:
        """Whether the request's mode is a passthrough one, by the routes as they are now."""
        return self._routes.passes_through(context.mode)

    async def forward(self, context: RequestContext) -> None:
        """Responds with the response of the mode's server.

        Raises:
            ApiError: no response began, or it broke off.
            ClientGoneError: the client left first.
        """
        with self._admission.slot():
            route = await self._routes.wait_ready(context.mode, context.accept_deadline())
            context.set_route(route)
            context.record.omits_error_messages = route.relayed
            context.record.identity.CopyFrom(identify(context.headers, None))
            async with self._workers.forward(route) as call:
                await self._forward(context, route, call)

    async def _forward(
        self, context: RequestContext, route: frontend.Route, call: Forwarding
    ) -> None:
        """Both directions at once, until the response ends or the client leaves."""
        sending = asyncio.ensure_future(self._send_request(context, route, call))
        receiving = asyncio.ensure_future(_receive_response(context, call, sending))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            # Sending ends first in three cases: the client is gone, its body stopped, or the
            # response is complete and `receiving` is about to return.
            if not receiving.done() and not context.response.ended:
                sending.result()
            else:
                await receiving
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _send_request(
        self, context: RequestContext, route: frontend.Route, call: Forwarding
    ) -> None:
        """Sends the request, then waits for the client's leaving.

        Raises:
            ClientGoneError
            ApiError: 408, the body stopped arriving.
        """
        head = worker.ForwardRequestHead(
            request_id=context.request_id,
            method=context.method,
            path=context.raw_path,
            query=context.query,
            headers=self._headers(context),
            mode=route.mode,
        )
        accepted = await call.send(worker.ForwardRequest(head=head))
        while accepted and context.body.has_unread:
            chunk = await context.body.next_chunk()
            accepted = await call.send(worker.ForwardRequest(body=chunk))
        await call.end()
        if accepted:
            await context.body.wait_gone()
            if not context.response.ended:
                raise ClientGoneError
        else:
            # The response is on its way; the rest of the body is read after it.
            await asyncio.Event().wait()

    def _headers(self, context: RequestContext) -> Iterator[worker.HttpHeader]:
        for name, value in context.headers.raw:
            # This process has already responded to `expect`.
            if name != b"expect" and not self._is_own_token(name, value):
                yield worker.HttpHeader(name=name.decode("latin-1"), value=value.decode("latin-1"))

    def _is_own_token(self, name: bytes, value: bytes) -> bool:
        if self._token is None or name not in (b"authorization", b"x-api-key"):
            return False
        offered = value.partition(b" ")[2].strip() if name == b"authorization" else value
        return hmac.compare_digest(offered, self._token)


async def _receive_response(
    context: RequestContext, call: Forwarding, sending: "asyncio.Future[None]"
) -> None:
    part = await call.next()
    if part is None or not part.HasField("head"):
        raise ApiError(500, "The relay worker ended without an answer.")
    await _send_head(context, part.head)
    while (part := await call.next()) is not None:
        context.record.set_first_content()
        await context.response.write(part.body)
    if context.body.has_unread:
        # A connection closed under a client that still sends would lose the response.
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await context.body.drain()
    await context.response.end()


async def _send_head(context: RequestContext, head: worker.ForwardResponseHead) -> None:
    headers = [
        (header.name.lower().encode("latin-1"), header.value.encode("latin-1"))
        for header in head.headers
    ]
    if context.body.has_unread:
        headers.append((b"connection", b"close"))
    if head.status >= 400:
        context.record.set_error_type(TYPE_BY_STATUS.get(head.status, "api_error"))
    await context.response.start(head.status, headers)
