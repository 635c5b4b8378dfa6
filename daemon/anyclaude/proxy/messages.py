"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

import asyncio
from typing import Final

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import overloaded
from anyclaude.messages.events import EventMachine, new_message_id
from anyclaude.messages.identity import identify
from anyclaude.messages.requests import (
    MessagesRequest,
    parse_count_tokens_request,
    parse_messages_request,
)
from anyclaude.proxy.admission import Admission
from anyclaude.proxy.answer import Answer
from anyclaude.proxy.exchange import Exchange
from anyclaude.proxy.routes import MODE_HEADER, RouteTable
from anyclaude.proxy.stream import EventStream
from anyclaude.proxy.workers import Workers
from anyclaude.runtime.settings import ServerSettings
from anyclaude.worker.v1 import worker_pb2 as worker

_SWITCHED_RETRY_AFTER_SECONDS: Final = 1


class MessagesEndpoint:
    def __init__(
        self, settings: ServerSettings, routes: RouteTable, workers: Workers, admission: Admission
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._workers = workers
        self._admission = admission

    async def create(self, exchange: Exchange) -> None:
        """Answers a Messages request."""
        with self._admission.slot():
            body = await exchange.inbound.read(self._settings.max_body_bytes)
            request = parse_messages_request(body)
            exchange.record.requested_model = request.model
            exchange.record.stream = request.stream
            exchange.record.identity.CopyFrom(identify(exchange.headers, request))
            await exchange.while_connected(self._generate(exchange, request, body))

    async def count_tokens(self, exchange: Exchange) -> None:
        """Counts the tokens of a prompt exactly as generation would."""
        with self._admission.slot():
            body = await exchange.inbound.read(self._settings.max_body_bytes)
            exchange.record.requested_model = parse_count_tokens_request(body).model
            await exchange.while_connected(self._count(exchange, body))

    async def _generate(self, exchange: Exchange, request: MessagesRequest, body: bytes) -> None:
        deadline = self._accept_deadline()
        route = await self._route(exchange, deadline)
        call = worker.GenerateRequest(
            request_id=exchange.request_id,
            body_json=body,
            identity=exchange.record.identity,
            mode=route.mode,
            message_id=new_message_id(),
        )
        async with self._workers.generate(route, call) as generation:
            machine = EventMachine(call.message_id, request.model)
            answer = Answer(exchange, generation, machine)
            if request.stream:
                stream = EventStream(exchange.send, self._settings.ping_interval_seconds)
                await answer.stream(stream, deadline)
            else:
                await answer.whole()

    async def _count(self, exchange: Exchange, body: bytes) -> None:
        route = await self._route(exchange, self._accept_deadline())
        call = worker.CountTokensRequest(
            request_id=exchange.request_id, body_json=body, mode=route.mode
        )
        tokens = await self._workers.count_tokens(route, call)
        await exchange.send_json(200, {"input_tokens": tokens})

    async def _route(self, exchange: Exchange, deadline: float) -> frontend.Route:
        mode = exchange.headers.get(MODE_HEADER, "").strip()
        route = await self._routes.ready(mode, deadline)
        exchange.take(route)
        exchange.extra_headers[MODE_HEADER] = route.mode
        if route.passthrough:
            # It became one while the body arrived, which has been read and judged by now.
            raise overloaded(f"The mode is {route.mode} now.", _SWITCHED_RETRY_AFTER_SECONDS)
        return route

    def _accept_deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._settings.accept_wait_seconds
