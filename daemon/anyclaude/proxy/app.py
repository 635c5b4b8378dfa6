"""The HTTP surface: which path is answered by what, and what every answer has in common.

Every answer carries a `request-id`, and every error the API's JSON envelope, whichever layer it
comes from. Under /v1 a passthrough mode answers everything; else what is not listed here is 404.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from anyclaude.messages.errors import ApiError
from anyclaude.proxy import queries
from anyclaude.proxy.door import Door
from anyclaude.proxy.exchange import BrokenAnswerError, Exchange
from anyclaude.proxy.inbound import ClientGoneError
from anyclaude.proxy.messages import MessagesEndpoint
from anyclaude.proxy.passthrough import Passthrough
from anyclaude.proxy.records import RecordFeed, log_request
from anyclaude.proxy.routes import RouteTable
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.settings import ServerSettings

log = structlog.get_logger("anyclaude.proxy.app")

Handler = Callable[[Exchange], Awaitable[None]]

# Known ones only: a path of the client's making would become a label in the metrics.
_RECORDED_PATHS: Final = frozenset({"/v1/messages", "/v1/messages/count_tokens"})


class App:
    """The outermost ASGI application."""

    def __init__(
        self, settings: ServerSettings, door: Door, router: Router, records: RecordFeed
    ) -> None:
        self._settings = settings
        self._door = door
        self._router = router
        self._records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, stall_seconds=self._settings.client_stall_seconds)
        # Makes the router raise what it refuses, so that we word it.
        scope["app"] = self
        try:
            await self._answer(exchange, scope, receive)
        except ClientGoneError:
            exchange.note_gone()
        except BrokenAnswerError:
            # Returning without the answer's end makes the server break the connection.
            log.warning("answer broke off", request_id=exchange.request_id)
        except asyncio.CancelledError:
            exchange.note_error(ApiError(529, "anyclaude stopped before the answer was complete."))
            raise
        finally:
            self._record(exchange)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        try:
            self._door.check(exchange.path, exchange.headers)
            await self._router(scope, receive, exchange.send)
        except ApiError as error:
            if exchange.begun:
                exchange.note_error(error)
                raise BrokenAnswerError from None
            await exchange.refuse(error)
        except HTTPException as error:
            exchange.extra_headers |= {k.lower(): v for k, v in (error.headers or {}).items()}
            await exchange.refuse(_no_such_endpoint(exchange, error.status_code))
        except (ClientGoneError, BrokenAnswerError):
            raise
        except Exception:
            log.exception("request failed", request_id=exchange.request_id)
            if exchange.begun:
                raise
            await exchange.refuse(ApiError(500, "anyclaude failed on this request."))

    def _record(self, exchange: Exchange) -> None:
        record = exchange.finish()
        if exchange.path in _RECORDED_PATHS:
            self._records.add(record)
            log_request(record)


def _no_such_endpoint(exchange: Exchange, status: int) -> ApiError:
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return ApiError(
            405,
            f"{exchange.path} does not answer {exchange.method}.",
            error_type="invalid_request_error",
        )
    return ApiError(404, f"There is no {exchange.path} here.")


def build_router(
    settings: ServerSettings,
    paths: Paths,
    routes: RouteTable,
    messages: MessagesEndpoint,
    passthrough: Passthrough,
) -> Router:
    """All endpoints."""
    ask = queries.Queries(settings, paths, routes)

    def api(path: str, handler: Handler, method: str) -> Route:
        """An endpoint that a passthrough mode answers itself."""
        return Route(path, _ApiEndpoint(passthrough, handler, method))

    return Router(
        routes=[
            api("/v1/messages", messages.create, "POST"),
            api("/v1/messages/count_tokens", messages.count_tokens, "POST"),
            api("/v1/models", ask.list_models, "GET"),
            api("/v1/models/{model_id:path}", ask.get_model, "GET"),
            api("/v1/{rest:path}", _nothing_here, "GET"),
            _route("/", queries.empty),
            _route("/api/hello", queries.empty),
            _route("/api/event_logging/batch", queries.accept_telemetry, "POST"),
            _route("/health/live", queries.live),
            _route("/health/ready", ask.ready),
            _route("/metrics", ask.metrics),
        ],
        redirect_slashes=False,
    )


def _route(path: str, handler: Handler, method: str = "GET") -> Route:
    return Route(path, _Endpoint(handler), methods=[method])


async def _nothing_here(exchange: Exchange) -> None:
    raise HTTPException(HTTPStatus.NOT_FOUND)


class _Endpoint:
    """A handler as an ASGI application; not a function, so that starlette adds no layer."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        exchange.path_params = scope["path_params"]
        await self._handler(exchange)


class _ApiEndpoint:
    """As `_Endpoint`; in a passthrough mode any method goes on to the mode's server."""

    def __init__(self, passthrough: Passthrough, handler: Handler, method: str) -> None:
        self._passthrough = passthrough
        self._handler = handler
        self._methods = {method, "HEAD"} if method == "GET" else {method}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        exchange.path_params = scope["path_params"]
        if self._passthrough.takes(exchange):
            await self._passthrough.forward(exchange)
        elif self._handler is not _nothing_here and exchange.method not in self._methods:
            allowed = {"allow": ", ".join(sorted(self._methods))}
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers=allowed)
        else:
            await self._handler(exchange)
