"""What is asked beside messages: models, health, metrics, and the client's probes."""

import asyncio
from typing import Final

import grpc

from anyclaude.control.v1 import control_pb2 as control
from anyclaude.control.v1.control_pb2_grpc import MetricsServiceStub
from anyclaude.messages.errors import ApiError
from anyclaude.proxy import catalog
from anyclaude.proxy.exchange import Exchange
from anyclaude.proxy.routes import RouteTable
from anyclaude.runtime.channels import aio_channel
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.settings import ServerSettings

_METRICS_TIMEOUT_SECONDS: Final = 5.0


class Queries:
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


async def empty(exchange: Exchange) -> None:
    await exchange.send_body(200, b"", "text/plain; charset=utf-8")


async def live(exchange: Exchange) -> None:
    await exchange.send_json(200, {"status": "live"})


async def accept_telemetry(exchange: Exchange) -> None:
    """Takes the client's telemetry and drops it, so that it leaves the machine nowhere."""
    await exchange.inbound.drain()
    await exchange.send_json(200, {})
