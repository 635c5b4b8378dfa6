"""MetricsService: the numbers, and the last requests."""

from typing import Final

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.supervisor.control.errors import answers
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.metrics import Scrape
from anyclaude.supervisor.modes import CACHE_WORKER

DEFAULT_PAGE_SIZE: Final = 100


class MetricsService(control_pb2_grpc.MetricsServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @answers
    async def GetMetrics(
        self, request: control_pb2.GetMetricsRequest
    ) -> control_pb2.GetMetricsResponse:
        mode = self._daemon.mode.get()
        worker = self._daemon.workers.get(CACHE_WORKER)
        sample = await worker.sample() if worker else None
        ready = self._daemon.routes.serves(mode)
        return self._daemon.metrics.read(Scrape(mode.name, ready, sample))

    @answers
    async def ListRequests(
        self, request: control_pb2.ListRequestsRequest
    ) -> control_pb2.ListRequestsResponse:
        count = request.page_size or DEFAULT_PAGE_SIZE
        return control_pb2.ListRequestsResponse(records=self._daemon.journal.newest(count))
