"""The HTTP surface: which endpoint serves which path, and what all responses have in common.

Every response carries a `request-id`, and every error the API's JSON envelope, whichever layer it
comes from. In a passthrough mode everything under /v1 is forwarded; any other path not listed here
is 404.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from anyclaude.messages.errors import ApiError
from anyclaude.proxy import endpoints
from anyclaude.proxy.access import AccessChecks, cors_headers, preflight_headers
from anyclaude.proxy.context import ClientGoneError, RequestContext
from anyclaude.proxy.messages import MessagesEndpoint
from anyclaude.proxy.page import StatusPage
from anyclaude.proxy.passthrough import Passthrough
from anyclaude.proxy.records import RecordFeed, log_request
from anyclaude.proxy.shapes import CHAT_PATH
from anyclaude.runtime.settings import ServerSettings

log = structlog.get_logger("anyclaude.proxy.app")

Handler = Callable[[RequestContext], Awaitable[None]]

_ANY_METHOD: Final = "*"
# Known paths only: any other path of a client would become a label in the metrics.
_RECORDED_PATHS: Final = frozenset({"/v1/messages", "/v1/messages/count_tokens", CHAT_PATH})
_SLASHES: Final = re.compile(r"/{2,}")


class App:
    """The outermost ASGI application: one call is one request."""

    def __init__(
        self, settings: ServerSettings, access: AccessChecks, router: Router, records: RecordFeed
    ) -> None:
        self._settings = settings
        self._access = access
        self._router = router
        self._records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = _without_extra_slashes(scope["path"])
        context = RequestContext(scope, receive, send, self._settings)
        if context.path in _RECORDED_PATHS:
            self._records.begin(context.record)
        try:
            await self._respond(context, scope, receive, send)
        except ClientGoneError:
            context.record.set_client_gone()
        except asyncio.CancelledError:
            stopped = ApiError(529, "anyclaude stopped before the answer was complete.")
            context.record.set_error(stopped)
            raise
        finally:
            self._record(context)

    async def _respond(
        self, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            if context.method == "OPTIONS" and (allowed := preflight_headers(context.headers)):
                self._access.check_source(context.headers)
                context.response.headers |= cors_headers(context.headers) | allowed
                await context.response.send_empty(204)
                return
            self._access.check(context.path, context.headers)
            context.response.headers |= cors_headers(context.headers)
            await self._router(scope, receive, send)
        except ApiError as error:
            await _fail(context, error)
        except ClientGoneError:
            raise
        except Exception:
            log.exception("request failed", request_id=context.request_id)
            await _fail(context, ApiError(500, "anyclaude failed on this request."))

    def _record(self, context: RequestContext) -> None:
        record = context.record.build(context.response.status)
        if context.path in _RECORDED_PATHS:
            self._records.add(record)
            log_request(record)


def _without_extra_slashes(path: str) -> str:
    """The path that a client meant whose base URL ends with a slash, for example."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


async def _fail(context: RequestContext, error: ApiError) -> None:
    response = context.response
    if not response.begun or (response.sends_events and not response.ended):
        await context.refuse(error)
        return
    # Returning before the response is complete makes the server break the connection.
    log.warning("response broke off", request_id=context.request_id)
    context.record.set_error(error)


def build_router(
    messages: MessagesEndpoint,
    others: endpoints.Endpoints,
    passthrough: Passthrough,
    page: StatusPage,
) -> Router:
    """All endpoints."""

    def api(path: str, handler: Handler, method: str) -> Route:
        return Route(path, _Endpoint(handler, method, passthrough))

    def local(path: str, handler: Handler, method: str = "GET") -> Route:
        return Route(path, _Endpoint(handler, method))

    return Router(
        routes=[
            api("/v1/messages", messages.create, "POST"),
            api("/v1/messages/count_tokens", messages.count_tokens, "POST"),
            api(CHAT_PATH, messages.complete_chat, "POST"),
            api("/v1/models", others.list_models, "GET"),
            api("/v1/models/{model_id:path}", others.get_model, "GET"),
            api("/v1/{rest:path}", _not_found, _ANY_METHOD),
            local("/", page.show),
            local("/status.json", page.status),
            local("/mode", page.switch, "POST"),
            local("/api/hello", endpoints.empty),
            local("/api/event_logging/batch", endpoints.accept_telemetry, "POST"),
            local("/health/live", endpoints.live),
            local("/health/ready", others.ready),
            local("/metrics", others.metrics),
        ],
        default=_Endpoint(_not_found, _ANY_METHOD),
        redirect_slashes=False,
    )


async def _not_found(context: RequestContext) -> None:
    raise ApiError(404, f"There is no {context.path} here.")


class _Endpoint:
    """A handler as an ASGI application; not a function, so that starlette adds no layer.

    Args:
        handler: responds to requests with `method`; HEAD counts as GET.
        method: the HTTP method.
        passthrough: if given, forwards requests of any method whose mode is a passthrough mode.
    """

    def __init__(
        self, handler: Handler, method: str, passthrough: Passthrough | None = None
    ) -> None:
        self._handler = handler
        self._methods = {"GET", "HEAD"} if method == "GET" else {method}
        self._passthrough = passthrough

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        context.path_params = scope.get("path_params", {})
        if self._passthrough is not None and self._passthrough.serves(context):
            await self._passthrough.forward(context)
        elif context.method in self._methods or _ANY_METHOD in self._methods:
            await self._handler(context)
        else:
            context.response.headers["allow"] = ", ".join(sorted(self._methods))
            raise ApiError(
                405,
                f"{context.path} does not answer {context.method}.",
                error_type="invalid_request_error",
            )
