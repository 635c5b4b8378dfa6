"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

import asyncio
from typing import Final

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.messages.events import EventMachine, new_message_id
from anyclaude.messages.identity import identify
from anyclaude.messages.requests import (
    CountTokensRequest,
    MessagesRequest,
    parse_count_tokens_request,
    parse_messages_request,
)
from anyclaude.proxy.admission import Admission
from anyclaude.proxy.answer import Answer
from anyclaude.proxy.auto import AUTO, Policy
from anyclaude.proxy.exchange import Exchange
from anyclaude.proxy.routes import MODE_HEADER, RouteTable
from anyclaude.proxy.stream import EventStream
from anyclaude.proxy.workers import Workers
from anyclaude.runtime.settings import ServerSettings
from anyclaude.worker.v1 import worker_pb2 as worker

_SWITCHED_RETRY_AFTER_SECONDS: Final = 1
# From here on the request is not to blame, and another server may do better.
_SERVER_FAULT: Final = 500


class MessagesEndpoint:
    def __init__(
        self,
        settings: ServerSettings,
        routes: RouteTable,
        workers: Workers,
        admission: Admission,
        policy: Policy,
    ) -> None:
        self._policy = policy
        self._settings = settings
        self._routes = routes
        self._workers = workers
        self._admission = admission

    async def create(self, exchange: Exchange) -> None:
        """Answers a Messages request."""
        with self._admission.slot():
            body = await exchange.inbound.read(self._settings.max_body_bytes)
            await exchange.while_connected(self._generate(exchange, body))

    async def count_tokens(self, exchange: Exchange) -> None:
        """Counts the tokens of a prompt exactly as generation would."""
        with self._admission.slot():
            body = await exchange.inbound.read(self._settings.max_body_bytes)
            request = parse_count_tokens_request(body)
            exchange.record.requested_model = request.model
            await exchange.while_connected(self._count(exchange, request, body))

    async def _generate(self, exchange: Exchange, body: bytes) -> None:
        deadline = self._accept_deadline()
        if (route := self._relay(exchange)) is not None:
            self._take(exchange, route)
            return await self._attempt(exchange, route, body, None, deadline)
        request = _judged(exchange, body)
        modes = await self._modes(exchange, request, body, deadline)
        while True:
            route = await self._route(exchange, modes, deadline)
            try:
                return await self._attempt(exchange, route, body, request, deadline)
            except ApiError as error:
                modes = [mode for mode in modes if mode != route.mode] if len(modes) > 1 else []
                if exchange.begun or not modes or error.status < _SERVER_FAULT:
                    raise
                exchange.record.route_reason += f"; {route.mode} failed ({error.type})"

    async def _attempt(
        self,
        exchange: Exchange,
        route: frontend.Route,
        body: bytes,
        request: MessagesRequest | None,
        deadline: float,
    ) -> None:
        """
        Args:
            exchange: what is answered.
            route: to the worker that is asked.
            body: of the request.
            request: the same, unless it is yet to be judged.
            deadline: for the worker to accept it (the loop's clock).
        """
        call = worker.GenerateRequest(
            request_id=exchange.request_id,
            body_json=body,
            identity=exchange.record.identity if request else None,
            mode=route.mode,
            message_id=new_message_id(),
        )
        async with self._workers.generate(route, call) as generation:
            request = request or _judged(exchange, body)
            exchange.hear(route)
            machine = EventMachine(call.message_id, request.model)
            answer = Answer(exchange, generation, machine)
            if request.stream:
                stream = EventStream(exchange.send, self._settings.ping_interval_seconds)
                await answer.stream(stream, deadline)
            else:
                await answer.whole()

    async def _count(self, exchange: Exchange, request: CountTokensRequest, body: bytes) -> None:
        deadline = self._accept_deadline()
        modes = await self._modes(exchange, request, body, deadline)
        route = await self._route(exchange, modes, deadline)
        exchange.hear(route)
        call = worker.CountTokensRequest(
            request_id=exchange.request_id, body_json=body, mode=route.mode
        )
        tokens = await self._workers.count_tokens(route, call)
        await exchange.send_json(200, {"input_tokens": tokens})

    def _relay(self, exchange: Exchange) -> frontend.Route | None:
        """The route of the request if a relay serves it now.

        A relay judges requests by the same rules and wants no identity: it is asked first, and
        does its work while we do ours.
        """
        mode = self._mode(exchange)
        route = self._routes.first_ready([mode]) if mode != AUTO else None
        return route if route is not None and route.relayed and not route.passthrough else None

    def _mode(self, exchange: Exchange) -> str:
        """Named by the request, or the service's."""
        return exchange.headers.get(MODE_HEADER, "").strip() or self._routes.default_mode

    async def _modes(
        self, exchange: Exchange, request: CountTokensRequest, body: bytes, deadline: float
    ) -> list[str]:
        """The modes that may answer, in order: one, unless a policy chooses."""
        await self._routes.known(deadline)
        mode = self._mode(exchange)
        if mode != AUTO:
            return [mode]
        choice = self._policy.choose(
            request, exchange.record.identity, len(body), self._routes.windows()
        )
        exchange.record.route_reason = choice.reason
        return list(choice.modes)

    async def _route(self, exchange: Exchange, modes: list[str], deadline: float) -> frontend.Route:
        """The first of `modes` that is ready, or gets ready before the deadline."""
        # Who named no mode is answered by the service's, which may change during the wait.
        named = exchange.headers.get(MODE_HEADER, "").strip() or exchange.record.route_reason
        waited = modes[0] if named else ""
        route = self._routes.first_ready(modes) or await self._routes.ready(waited, deadline)
        self._take(exchange, route)
        if route.passthrough and not exchange.record.route_reason:
            # It became one while the body arrived, which has been read and judged by now.
            raise overloaded(f"The mode is {route.mode} now.", _SWITCHED_RETRY_AFTER_SECONDS)
        return route

    @staticmethod
    def _take(exchange: Exchange, route: frontend.Route) -> None:
        exchange.take(route)
        exchange.extra_headers[MODE_HEADER] = route.mode

    def _accept_deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._settings.accept_wait_seconds


def _judged(exchange: Exchange, body: bytes) -> MessagesRequest:
    """The request, and what the record has to say of it.

    Raises:
        ApiError: 400, it is none.
    """
    request = parse_messages_request(body)
    exchange.record.requested_model = request.model
    exchange.record.stream = request.stream
    exchange.record.images = request.image_count
    exchange.record.identity.CopyFrom(identify(exchange.headers, request))
    return request
