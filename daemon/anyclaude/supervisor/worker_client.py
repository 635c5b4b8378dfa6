"""What the daemon asks of a worker: its status and its caches."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import NotReadyError, SupervisedChild
from anyclaude.supervisor.modes import AUTO_MODE, OWN_MODE
from anyclaude.worker.v1 import worker_pb2, worker_pb2_grpc

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# A glance must not make `status` slow; a list must come while its caller still waits for it; a
# prune may wait for the MLX thread's next step.
GLANCE_SECONDS: Final = 1.0
LIST_SECONDS: Final = 4.0
PRUNE_SECONDS: Final = 30.0
# Prefill of whole prompts, or every cache to a file, between the turns of other requests.
COMPUTE_SECONDS: Final = 1800.0
_RETRY_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Sample:
    """A worker's state at one moment."""

    status: worker_pb2.GetStatusResponse
    caches: int


class WorkerClient:
    """One worker, through whichever process runs it now.

    The verbs raise `NotReadyError` when no process serves, and grpc.aio.AioRpcError when it fails.
    """

    def __init__(self, child: SupervisedChild, changes: Changes) -> None:
        self.child = child
        self._changes = changes
        # By generation: what a process that is gone has said is worth nothing.
        self._last: tuple[int, worker_pb2.GetStatusResponse] | None = None

    def model(self, mode: str) -> worker_pb2.ModelInfo | None:
        """What the current process answers `mode` with; None until it has said so."""
        last = self._last_status()
        if last is None:
            return None
        upstream = self.upstream(mode)
        return upstream.model if upstream else last.model

    def upstream(self, mode: str) -> worker_pb2.UpstreamStatus | None:
        """What was last heard of the server behind a relayed mode."""
        last = self._last_status()
        name = OWN_MODE if mode == AUTO_MODE else mode
        found = (known for known in last.upstreams if known.name == name) if last else ()
        return next(iter(found), None)

    def _last_status(self) -> worker_pb2.GetStatusResponse | None:
        if self._last and self._last[0] == self.child.supervisor.generation:
            return self._last[1]
        return None

    async def follow(self) -> None:
        """Asks every new process for its model; runs until cancelled."""
        while True:
            version = self._changes.version
            if await self._learn_model():
                await self._changes.after(version)
            else:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _learn_model(self) -> bool:
        """False when it has to be tried again."""
        if self._last_status() is not None:
            return True
        try:
            await self.status(LIST_SECONDS)
        except NotReadyError:
            return True
        except grpc.aio.AioRpcError as error:
            _log.warning("worker gives no status", worker=self.child.name, why=error.details())
            return False
        return True

    async def status(
        self, timeout_seconds: float, check_mode: str = ""
    ) -> worker_pb2.GetStatusResponse:
        """The status now; the server behind `check_mode` is asked anew for it."""
        generation = self.child.supervisor.generation
        stub = await self._stub()
        status: worker_pb2.GetStatusResponse = await stub.GetStatus(
            worker_pb2.GetStatusRequest(check_mode=check_mode), timeout=timeout_seconds
        )
        before, self._last = self._last, (generation, status)
        if before is None or before[0] != generation or _news(before[1]) != _news(status):
            self._changes.notify()
        return status

    async def glance(self) -> worker_pb2.GetStatusResponse | None:
        """The status now; the last one known while the worker is busy; None while it is down."""
        try:
            return await self.status(GLANCE_SECONDS)
        except NotReadyError:
            return None
        except grpc.aio.AioRpcError as error:
            _log.debug("worker slow to answer", worker=self.child.name, why=error.details())
            return self._last_status()

    async def sample(self) -> Sample | None:
        """As `glance`, for the metrics."""
        try:
            status, caches = await asyncio.gather(
                self.status(GLANCE_SECONDS), self.caches(GLANCE_SECONDS)
            )
        except (NotReadyError, grpc.aio.AioRpcError) as error:
            _log.debug("no worker metrics", worker=self.child.name, why=str(error))
            return None
        return Sample(status, len(caches.caches))

    async def caches(self, timeout_seconds: float = LIST_SECONDS) -> worker_pb2.ListCachesResponse:
        stub = await self._stub()
        answer: worker_pb2.ListCachesResponse = await stub.ListCaches(
            worker_pb2.ListCachesRequest(), timeout=timeout_seconds
        )
        return answer

    async def prune(self, request: worker_pb2.PruneCachesRequest) -> worker_pb2.PruneCachesResponse:
        stub = await self._stub()
        answer: worker_pb2.PruneCachesResponse = await stub.PruneCaches(
            request, timeout=PRUNE_SECONDS
        )
        return answer

    async def cache_tree(self) -> list[worker_pb2.CacheSegment]:
        stub = await self._stub()
        answer = await stub.GetCacheTree(worker_pb2.GetCacheTreeRequest(), timeout=LIST_SECONDS)
        return list(answer.segments)

    async def pin(self, name: str, *, pinned: bool) -> worker_pb2.PinCacheResponse:
        stub = await self._stub()
        answer: worker_pb2.PinCacheResponse = await stub.PinCache(
            worker_pb2.PinCacheRequest(name=name, pinned=pinned), timeout=LIST_SECONDS
        )
        return answer

    async def warm(self, body_json: bytes) -> worker_pb2.WarmCacheResponse:
        stub = await self._stub()
        answer: worker_pb2.WarmCacheResponse = await stub.WarmCache(
            worker_pb2.WarmCacheRequest(body_json=body_json), timeout=COMPUTE_SECONDS
        )
        return answer

    async def verify(self, max_tokens: int) -> worker_pb2.VerifyCachesResponse:
        stub = await self._stub()
        answer: worker_pb2.VerifyCachesResponse = await stub.VerifyCaches(
            worker_pb2.VerifyCachesRequest(max_tokens=max_tokens), timeout=COMPUTE_SECONDS
        )
        return answer

    async def export(
        self, request: worker_pb2.ExportCachesRequest
    ) -> worker_pb2.ExportCachesResponse:
        stub = await self._stub()
        answer: worker_pb2.ExportCachesResponse = await stub.ExportCaches(
            request, timeout=COMPUTE_SECONDS
        )
        return answer

    async def take_over(
        self, request: worker_pb2.ImportCachesRequest
    ) -> worker_pb2.ImportCachesResponse:
        stub = await self._stub()
        answer: worker_pb2.ImportCachesResponse = await stub.ImportCaches(
            request, timeout=COMPUTE_SECONDS
        )
        return answer

    async def explain(self, request_id: str) -> worker_pb2.Explanation | None:
        """Why a request reused what it did; None when the worker does not remember it."""
        stub = await self._stub()
        answer: worker_pb2.ExplainRequestResponse = await stub.ExplainRequest(
            worker_pb2.ExplainRequestRequest(request_id=request_id), timeout=LIST_SECONDS
        )
        return answer.explanation if answer.HasField("explanation") else None

    async def _stub(self) -> Any:
        return worker_pb2_grpc.WorkerServiceStub(await self.child.channel())  # type: ignore[no-untyped-call]


def _news(status: worker_pb2.GetStatusResponse) -> list[tuple[str, int, worker_pb2.ModelInfo]]:
    """What readiness and routes depend on."""
    return [(known.name, known.reachability, known.model) for known in status.upstreams]
