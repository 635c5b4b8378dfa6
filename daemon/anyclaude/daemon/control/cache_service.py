"""CacheService: the MLX worker's caches, asked of it anew at each call."""

from collections.abc import Awaitable
from typing import Final, TypeVar

import grpc
import grpc.aio

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.daemon.control.errors import ControlError, answers
from anyclaude.daemon.daemon import Daemon
from anyclaude.daemon.links import NotReadyError
from anyclaude.daemon.modes import CACHE_WORKER
from anyclaude.daemon.routes import seconds_to_ready, why_not_ready
from anyclaude.daemon.worker_client import WorkerClient
from anyclaude.worker.v1 import worker_pb2

DEFAULT_PAGE_SIZE: Final = 1000
# The process ended during the call, or was just being replaced.
_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})

_Answer = TypeVar("_Answer")


class CacheService(control_pb2_grpc.CacheServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @answers
    async def ListCaches(
        self, request: control_pb2.ListCachesRequest
    ) -> control_pb2.ListCachesResponse:
        worker = self._worker()
        caches = await self._ask(worker.caches())
        page, next_token = _page(caches, request.page_size, request.page_token)
        seen = await worker.glance()
        return control_pb2.ListCachesResponse(
            caches=page, next_page_token=next_token, memory=seen.memory if seen else None
        )

    @answers
    async def GetCache(self, request: control_pb2.GetCacheRequest) -> control_pb2.GetCacheResponse:
        for cache in await self._ask(self._worker().caches()):
            if cache.name == request.name:
                return control_pb2.GetCacheResponse(cache=cache)
        raise ControlError(
            grpc.StatusCode.NOT_FOUND,
            "UNKNOWN_CACHE",
            f'There is no cache "{request.name}". `anyclaudectl cache list` shows those there are.',
            {"cache": request.name},
        )

    @answers
    async def PruneCaches(
        self, request: control_pb2.PruneCachesRequest
    ) -> control_pb2.PruneCachesResponse:
        _check(request.filter)
        asked = worker_pb2.PruneCachesRequest(filter=request.filter, dry_run=not request.force)
        answer = await self._ask(self._worker().prune(asked))
        return control_pb2.PruneCachesResponse(
            caches=answer.caches,
            freed_bytes=answer.freed_bytes,
            remaining_bytes=answer.remaining_bytes,
        )

    @answers
    async def ExplainCache(
        self, request: control_pb2.ExplainCacheRequest
    ) -> control_pb2.ExplainCacheResponse:
        worker = self._worker()
        explanation = await self._ask(worker.explain(request.request_id))
        if explanation is None:
            raise ControlError(
                grpc.StatusCode.NOT_FOUND,
                "UNKNOWN_REQUEST",
                f'The {worker.child.name} worker remembers no request "{request.request_id}": '
                "it was answered elsewhere, long ago, or before the worker's start. "
                "`anyclaudectl requests` shows the newest.",
                {"request": request.request_id},
            )
        return control_pb2.ExplainCacheResponse(explanation=explanation)

    def _worker(self) -> WorkerClient:
        worker = self._daemon.workers.get(CACHE_WORKER)
        if worker is None:
            raise ControlError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NO_CACHE_WORKER",
                f"This daemon runs no {CACHE_WORKER} worker, so it keeps no caches.",
            )
        return worker

    async def _ask(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            return await call
        except NotReadyError:
            raise self._down() from None
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None

    def _down(self) -> ControlError:
        child, now = self._worker().child, self._daemon.clock()
        return ControlError(
            grpc.StatusCode.UNAVAILABLE,
            "WORKER_DOWN",
            why_not_ready(child, now),
            {"worker": child.name},
            retry_seconds=seconds_to_ready(child, now),
        )

    def _failed(self, error: grpc.aio.AioRpcError) -> ControlError:
        name = self._worker().child.name
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"The {name} worker gave no answer in time. Try again."
            return ControlError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "WORKER_BUSY", message, {"worker": name}
            )
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            message = str(error.details())
            return ControlError(grpc.StatusCode.INVALID_ARGUMENT, "BAD_FILTER", message)
        if error.code() in _GONE:
            message = f"The {name} worker went away; it is being started again."
            return ControlError(
                grpc.StatusCode.UNAVAILABLE, "WORKER_DOWN", message, {"worker": name}, 1.0
            )
        # Its own code failed: nothing the caller does or waits for mends that.
        message = f"The {name} worker failed: {error.details()}. `anyclaudectl logs` says more."
        return ControlError(grpc.StatusCode.INTERNAL, "WORKER_FAILED", message, {"worker": name})


def _page(
    caches: list[worker_pb2.Cache], size: int, token: str
) -> tuple[list[worker_pb2.Cache], str]:
    """By name, so that a cache that comes or goes between two pages moves no other."""
    rest = sorted((c for c in caches if c.name > token), key=lambda c: c.name)
    page = rest[: size or DEFAULT_PAGE_SIZE]
    return page, page[-1].name if len(page) < len(rest) else ""


def _check(chosen: worker_pb2.PruneFilter) -> None:
    if chosen.HasField("older_than") and chosen.older_than.ToNanoseconds() < 0:
        raise ControlError(
            grpc.StatusCode.INVALID_ARGUMENT, "BAD_FILTER", "older_than must not be negative."
        )
