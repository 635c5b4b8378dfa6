"""The daemon's side door: `FrontendService` on a unix socket."""

from collections.abc import AsyncIterator
from typing import Any

import structlog

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.frontend.v1.frontend_pb2_grpc import FrontendServiceServicer
from anyclaude.proxy.records import RecordFeed
from anyclaude.proxy.routes import RouteTable
from anyclaude.proxy.workers import Workers

log = structlog.get_logger("anyclaude.proxy.control")


class FrontendService(FrontendServiceServicer):
    def __init__(self, routes: RouteTable, workers: Workers, records: RecordFeed) -> None:
        self._routes = routes
        self._workers = workers
        self._records = records

    async def SetRoutes(
        self, request: frontend.SetRoutesRequest, context: Any
    ) -> frontend.SetRoutesResponse:
        if self._routes.push(request):
            self._workers.keep({route.worker_socket for route in request.routes})
            log.debug("routes", version=request.version, default_mode=request.default_mode)
        return frontend.SetRoutesResponse()

    async def StreamRecords(
        self, request: frontend.StreamRecordsRequest, context: Any
    ) -> AsyncIterator[frontend.StreamRecordsResponse]:
        async for response in self._records.follow():
            yield response
