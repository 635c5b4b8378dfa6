"""The HTTP surface: which path is answered by what, and what every answer has in common.

Every answer carries a `request-id`, and every error the API's JSON envelope, whichever layer it
comes from. What is not listed here is answered 404: nothing is ever passed on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import grpc
import structlog
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from anyclaude.control.v1 import control_pb2 as control
from anyclaude.control.v1.control_pb2_grpc import MetricsServiceStub
from anyclaude.messages.errors import ApiError
from anyclaude.proxy import catalog
from anyclaude.proxy.door import Door
from anyclaude.proxy.exchange import Exchange
from anyclaude.proxy.inbound import ClientGoneError
from anyclaude.proxy.messages import MessagesEndpoint
from anyclaude.proxy.records import RecordFeed, log_request
from anyclaude.proxy.routes import RouteTable
from anyclaude.runtime.channels import aio_channel
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.settings import ServerSettings

log = structlog.get_logger("anyclaude.proxy.app")

Handler = Callable[[Exchange], Awaitable[None]]

_METRICS_TIMEOUT_SECONDS: Final = 5.0


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
            await exchange.refuse(error)
        except HTTPException as error:
            exchange.extra_headers |= {k.lower(): v for k, v in (error.headers or {}).items()}
            await exchange.refuse(_no_such_endpoint(exchange, error.status_code))
        except ClientGoneError:
            raise
        except Exception:
            log.exception("request failed", request_id=exchange.request_id)
            if exchange.begun:
                raise
            await exchange.refuse(ApiError(500, "anyclaude failed on this request."))

    def _record(self, exchange: Exchange) -> None:
        record = exchange.finish()
        if exchange.path.startswith("/v1/messages"):
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
    settings: ServerSettings, paths: Paths, routes: RouteTable, messages: MessagesEndpoint
) -> Router:
    """All endpoints."""
    operator = _Operator(settings, paths, routes)
    return Router(
        routes=[
            _route("/v1/messages", messages.create, "POST"),
            _route("/v1/messages/count_tokens", messages.count_tokens, "POST"),
            _route("/v1/models", operator.list_models),
            _route("/v1/models/{model_id:path}", operator.get_model),
            _route("/", _empty),
            _route("/api/hello", _empty),
            # The client's telemetry: taken and dropped here, so that it leaves the machine nowhere.
            _route("/api/event_logging/batch", _accept_telemetry, "POST"),
            _route("/health/live", _live),
            _route("/health/ready", operator.ready),
            _route("/metrics", operator.metrics),
        ],
        redirect_slashes=False,
    )


def _route(path: str, handler: Handler, method: str = "GET") -> Route:
    return Route(path, _Endpoint(handler), methods=[method])


class _Endpoint:
    """A handler as an ASGI application; not a function, so that starlette adds no layer."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        exchange.path_params = scope["path_params"]
        await self._handler(exchange)


class _Operator:
    """What clients and operators ask beside messages."""

    def __init__(self, settings: ServerSettings, paths: Paths, routes: RouteTable) -> None:
        self._settings = settings
        self._paths = paths
        self._routes = routes

    async def list_models(self, exchange: Exchange) -> None:
        await self._routes.known(self._deadline())
        await exchange.send_json(200, catalog.list_models(self._routes))

    async def get_model(self, exchange: Exchange) -> None:
        await self._routes.known(self._deadline())
        model = catalog.get_model(self._routes, exchange.path_params["model_id"])
        await exchange.send_json(200, model)

    async def ready(self, exchange: Exchange) -> None:
        try:
            route = self._routes.find_ready()
        except ApiError as error:
            raise ApiError(
                503,
                error.message,
                retry_after_seconds=error.retry_after_seconds,
                error_type="overloaded_error",
            ) from None
        await exchange.send_json(200, {"status": "ready", "mode": route.mode})

    async def metrics(self, exchange: Exchange) -> None:
        """The daemon's metrics; it knows them, this process only asks."""
        async with aio_channel(self._paths.control_socket) as channel:
            try:
                stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]
                response = await stub.GetMetrics(
                    control.GetMetricsRequest(), timeout=_METRICS_TIMEOUT_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                raise ApiError(
                    503,
                    f"The daemon does not answer ({error.code().name}). "
                    "`anyclaudectl status` says more.",
                ) from None
        await exchange.send_body(200, response.text, "text/plain; version=0.0.4; charset=utf-8")

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._settings.accept_wait_seconds


async def _empty(exchange: Exchange) -> None:
    await exchange.send_body(200, b"", "text/plain; charset=utf-8")


async def _live(exchange: Exchange) -> None:
    await exchange.send_json(200, {"status": "live"})


async def _accept_telemetry(exchange: Exchange) -> None:
    await exchange.inbound.drain()
    await exchange.send_json(200, {})
