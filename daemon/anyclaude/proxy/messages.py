"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import structlog
from pydantic_core import to_json

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.chat_request import messages_body, tells_usage
from anyclaude.messages.context_edits import asks_for_edits
from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.messages.events import new_message_id
from anyclaude.messages.identity import identify
from anyclaude.messages.lengths import check_characters
from anyclaude.messages.offered import not_served
from anyclaude.messages.requests import (
    CountTokensRequest,
    MessagesRequest,
    parse_count_tokens_request,
    parse_messages_request,
    read_json,
)
from anyclaude.messages.websearch import (
    Search,
    failed_message,
    found_message,
    only_searches,
    stream_events,
)
from anyclaude.proxy.access import Admission
from anyclaude.proxy.auto import AUTO, Choice, Policy
from anyclaude.proxy.body_budget import LARGE_BODY_BYTES, BodyBudget, off_loop
from anyclaude.proxy.context import RequestContext
from anyclaude.proxy.message_response import MessageResponse
from anyclaude.proxy.routes import RouteTable, lacks_tools
from anyclaude.proxy.search import SearchClient, SearchError
from anyclaude.proxy.shapes import ChatShape
from anyclaude.proxy.submission import Submissions
from anyclaude.proxy.vision import Vision
from anyclaude.proxy.workers import Workers
from anyclaude.worker.v1 import worker_pb2 as worker

T = TypeVar("T")

log = structlog.get_logger("anyclaude.proxy.messages")

# What a request asks for that nothing here did: the tools of Anthropic's service, or any tools if
# the model makes no calls.
NOT_SERVED_HEADER: Final = "x-anyclaude-not-served"
_SEARCH_TOOL: Final = b'"web_search_'
_MAX_NOT_SERVED_CHARACTERS: Final = 500
_SWITCHED_RETRY_AFTER_SECONDS: Final = 1
# From this status on the server is at fault, not the request: another server may succeed.
_SERVER_FAULT: Final = 500


class MessagesEndpoint:
    def __init__(
        self,
        routes: RouteTable,
        workers: Workers,
        submissions: Submissions,
        admission: Admission,
        bodies: BodyBudget,
        policy: Policy,
        search: SearchClient,
        vision: Vision,
    ) -> None:
        self._routes = routes
        self._workers = workers
        self._submissions = submissions
        self._admission = admission
        self._bodies = bodies
        self._policy = policy
        self._search = search
        self._vision = vision

    async def create(self, context: RequestContext) -> None:
        """Responds to a Messages request."""
        async with self._body(context) as body:
            await context.while_connected(self._create(context, body))

    async def complete_chat(self, context: RequestContext) -> None:
        """Responds to a chat completion, which is a Messages request in OpenAI's shape."""
        async with self._body(context) as sent:
            body, context.shape = await off_loop(len(sent), _read_chat, sent)
            await context.while_connected(self._create(context, body))

    async def count_tokens(self, context: RequestContext) -> None:
        """Counts the tokens of a prompt exactly as generation would."""
        async with self._body(context) as body:
            request = await off_loop(len(body), parse_count_tokens_request, body)
            context.record.requested_model = request.model
            await context.while_connected(self._count_tokens(context, request, body))

    @asynccontextmanager
    async def _body(self, context: RequestContext) -> AsyncIterator[bytes]:
        """The body of an admitted request, within the memory that all bodies may use."""
        with self._admission.slot():
            async with self._bodies.claim(context.body.most_bytes) as claim:
                body = await context.body.read()
                claim.shrink(len(body))
                yield body

    async def _create(self, context: RequestContext, body: bytes) -> None:
        deadline = context.accept_deadline()
        if self._search.is_configured and _SEARCH_TOOL in body:
            request = await _validate(context, body)
            if only_searches(request):
                return await self._answer_search(context, request, deadline)
        if (route := self._ready_relay(context)) is not None:
            # A relay validates requests itself and needs no identity, so it starts while we
            # validate.
            return await self._generate(context, route, body, None, deadline)
        request = await _validate(context, body)
        choice = await self._choose(context, request, len(body), deadline)
        modes = choice.modes
        while True:
            route = await self._route(context, modes, choice, deadline)
            try:
                return await self._generate(context, route, body, request, deadline)
            except ApiError as error:
                modes = tuple(mode for mode in modes if mode != route.mode)
                is_last = not (choice.reason and modes)
                if is_last or context.response.begun or error.status < _SERVER_FAULT:
                    raise
                context.record.route_reason += f"; {route.mode} failed ({error.type})"

    async def _answer_search(
        self, context: RequestContext, request: MessagesRequest, deadline: float
    ) -> None:
        """Responds with what the search backend finds; no worker takes part."""
        await self._routes.wait_pushed(deadline)
        context.set_route(self._routes.find(context.mode))
        search = Search.of(request)
        finding = self._search.find(search)
        try:
            pages = await _with_pings(context, request, finding, deadline)
            message = found_message(request.model, search.query, pages)
        except SearchError as error:
            log.warning("web search failed", why=str(error))
            message = failed_message(request.model, search.query, str(error))
        if not request.stream:
            await context.response.send_json(200, message)
            return
        await context.stream.start()
        await context.stream.send(list(stream_events(message)))
        await context.stream.end()

    async def _generate(
        self,
        context: RequestContext,
        route: frontend.Route,
        body: bytes,
        request: MessagesRequest | None,
        deadline: float,
    ) -> None:
        """Sends the request to one worker, and its events to the client.

        Args:
            context: the request's context.
            route: the worker's route.
            body: the request's body.
            request: the validated body; None while it is not validated yet.
            deadline: when the worker must have accepted the request (the loop's clock).
        """
        context.set_route(route)
        if request is not None:
            await _check_length(request, len(body), route)
            reading = self._readable(request, body, route)
            body = await _with_pings(context, request, reading, deadline)
        call = worker.GenerateRequest(
            request_id=context.request_id,
            body_json=body,
            identity=context.record.identity if request else None,
            mode=route.mode,
            message_id=new_message_id(),
        )
        # Mode auto tries its next mode, rather than wait for the next worker of this one.
        may_wait = not context.record.route_reason
        async with self._submissions.submit(route, call, may_wait=may_wait) as submission:
            request = request or await _validate(context, body)
            context.record.omits_error_messages = route.relayed
            if ignored := _not_served(request, route):
                context.response.headers[NOT_SERVED_HEADER] = _header_text(ignored)
            response = MessageResponse(context, submission, call.message_id, request)
            try:
                if request.stream:
                    await response.send_stream(deadline)
                else:
                    await response.send_whole()
            finally:
                replayed = submission.answer.replayed_tokens
                context.record.set_deaths(submission.deaths, replayed)

    async def _count_tokens(
        self, context: RequestContext, request: CountTokensRequest, body: bytes
    ) -> None:
        deadline = context.accept_deadline()
        choice = await self._choose(context, request, len(body), deadline)
        route = await self._route(context, choice.modes, choice, deadline)
        context.record.omits_error_messages = route.relayed
        await _check_length(request, len(body), route)
        body = await self._readable(request, body, route)
        call = worker.CountTokensRequest(
            request_id=context.request_id, body_json=body, mode=route.mode
        )
        counted = await self._workers.count_tokens(route, call)
        answer: dict[str, Any] = {"input_tokens": counted.input_tokens}
        if asks_for_edits(request):
            original = counted.input_tokens + counted.cleared_input_tokens
            answer["context_management"] = {"original_input_tokens": original}
        await context.response.send_json(200, answer)

    async def _readable(
        self, request: CountTokensRequest, body: bytes, route: frontend.Route
    ) -> bytes:
        """The body that the route's model can read; a relay passes images on."""
        return body if route.relayed else await self._vision.described(request, body)

    def _ready_relay(self, context: RequestContext) -> frontend.Route | None:
        """The route of the request if a relay serves its mode now."""
        mode = context.mode or self._routes.default_mode
        route = self._routes.first_ready([mode]) if mode != AUTO else None
        return route if route is not None and route.relayed and not route.passthrough else None

    async def _choose(
        self, context: RequestContext, request: CountTokensRequest, body_bytes: int, deadline: float
    ) -> Choice:
        """The modes that may serve the request, in order: one, unless a policy chooses."""
        await self._routes.wait_pushed(deadline)
        mode = context.mode or self._routes.default_mode
        if mode != AUTO:
            return Choice((mode,), reason="")
        choice = self._policy.choose(
            request, context.record.identity, body_bytes, self._routes.windows()
        )
        context.record.route_reason = choice.reason
        return choice

    async def _route(
        self, context: RequestContext, modes: tuple[str, ...], choice: Choice, deadline: float
    ) -> frontend.Route:
        """The route of the first of `modes` that is ready, or gets ready before the deadline."""
        route = self._routes.first_ready(modes)
        if route is None:
            # The default mode may change during the wait, and the request follows it.
            is_default = not (context.mode or choice.reason)
            route = await self._routes.wait_ready("" if is_default else modes[0], deadline)
        context.set_route(route)
        if route.passthrough and not choice.reason:
            # The mode was switched while the body arrived, which is read and validated by now.
            raise overloaded(f"The mode is {route.mode} now.", _SWITCHED_RETRY_AFTER_SECONDS)
        return route


async def _with_pings(
    context: RequestContext, request: MessagesRequest, work: Coroutine[Any, Any, T], deadline: float
) -> T:
    """The result of `work`; a client that streams gets pings if it is not there by `deadline`."""
    return await (context.stream.wait(work, deadline) if request.stream else work)


def _not_served(request: MessagesRequest, route: frontend.Route) -> list[str]:
    """What the local model leaves out of the request; the relay leaves that to the server."""
    if route.relayed:
        return []
    return not_served(request, calls_tools=not lacks_tools(route))


def _header_text(names: list[str]) -> str:
    text = ", ".join(names)[:_MAX_NOT_SERVED_CHARACTERS]
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def _read_chat(body: bytes) -> tuple[bytes, ChatShape]:
    """The Messages request in a chat completion, and the shape of its response.

    Raises:
        ApiError: 400, the body is not a chat completion.
    """
    document = read_json(body)
    translated = to_json(messages_body(document))
    return translated, ChatShape(tells_usage=tells_usage(document))


async def _check_length(
    request: CountTokensRequest, body_bytes: int, route: frontend.Route
) -> None:
    """Refuses a prompt that cannot fit into the local model's window, before it is sent there.

    Raises:
        ApiError: 400
    """
    model = route.model
    if body_bytes >= LARGE_BODY_BYTES and not route.relayed:
        limits = model.longest_token_characters, model.context_window_tokens
        await off_loop(body_bytes, check_characters, request, *limits)


async def _validate(context: RequestContext, body: bytes) -> MessagesRequest:
    """The request in `body`, whose model, identity and form the record gets.

    Raises:
        ApiError: 400, the body is not a Messages request.
    """

    def read() -> tuple[MessagesRequest, worker.Identity]:
        request = parse_messages_request(body)
        return request, identify(context.headers, request)

    request, identity = await off_loop(len(body), read)
    context.record.set_request(request, identity)
    return request
