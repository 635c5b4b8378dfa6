"""CacheService: the MLX worker's caches, asked of it anew at each call."""

from collections.abc import Awaitable, Mapping
from pathlib import PurePath
from typing import Final, TypeVar

import grpc
import grpc.aio

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.supervisor.child import NotReadyError
from anyclaude.supervisor.control.errors import ControlError, answers
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.modes import CACHE_WORKER
from anyclaude.supervisor.routes import seconds_to_ready, why_not_ready
from anyclaude.supervisor.worker_client import WorkerClient
from anyclaude.worker.v1 import worker_pb2

DEFAULT_PAGE_SIZE: Final = 1000
# The process ended during the call, or was just being replaced.
_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
# What the worker says of what it was asked, rather than of itself.
_REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: "BAD_FILTER",
    grpc.StatusCode.NOT_FOUND: "UNKNOWN_CACHE",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "PINNED_TOO_MUCH",
}
# The same of a file that it was to write or read.
_FILE_REFUSALS: Final = {
    grpc.StatusCode.NOT_FOUND: "NOTHING_THERE",
    grpc.StatusCode.DATA_LOSS: "DAMAGED_EXPORT",
    grpc.StatusCode.FAILED_PRECONDITION: "EXPORT_REFUSED",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "EXPORT_TOO_LARGE",
}

_Answer = TypeVar("_Answer")


class CacheService(control_pb2_grpc.CacheServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @answers
    async def ListCaches(
        self, request: control_pb2.ListCachesRequest
    ) -> control_pb2.ListCachesResponse:
        worker = self._worker()
        listed = await self._ask(worker.caches())
        page, next_token = _page(list(listed.caches), request.page_size, request.page_token)
        seen = await worker.glance()
        return control_pb2.ListCachesResponse(
            caches=page,
            next_page_token=next_token,
            memory=seen.memory if seen else None,
            models=() if request.page_token else listed.models,
        )

    @answers
    async def GetCache(self, request: control_pb2.GetCacheRequest) -> control_pb2.GetCacheResponse:
        for cache in (await self._ask(self._worker().caches())).caches:
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
    async def GetCacheTree(
        self, request: control_pb2.GetCacheTreeRequest
    ) -> control_pb2.GetCacheTreeResponse:
        segments = await self._ask(self._worker().cache_tree())
        return control_pb2.GetCacheTreeResponse(segments=segments)

    @answers
    async def PinCache(self, request: control_pb2.PinCacheRequest) -> control_pb2.PinCacheResponse:
        result = await self._ask(self._worker().pin(request.name, pinned=request.pinned))
        return control_pb2.PinCacheResponse(result=result)

    @answers
    async def WarmCache(
        self, request: control_pb2.WarmCacheRequest
    ) -> control_pb2.WarmCacheResponse:
        answer = await self._ask(self._worker().warm(request.body_json))
        if answer.HasField("failed"):
            raise ControlError(
                grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST_BODY", answer.failed.message
            )
        return control_pb2.WarmCacheResponse(usage=answer.usage)

    @answers
    async def VerifyCaches(
        self, request: control_pb2.VerifyCachesRequest
    ) -> control_pb2.VerifyCachesResponse:
        result = await self._ask(self._worker().verify(request.max_tokens))
        return control_pb2.VerifyCachesResponse(result=result)

    @answers
    async def ExportCaches(
        self, request: control_pb2.ExportCachesRequest
    ) -> control_pb2.ExportCachesResponse:
        _check_path(request.request.path)
        if request.request.prefixes and request.request.session_id:
            raise _bad_filter("prefixes belong to no session: ask for them or for a session.")
        result = await self._ask(self._worker().export(request.request), _FILE_REFUSALS)
        return control_pb2.ExportCachesResponse(result=result)

    @answers
    async def ImportCaches(
        self, request: control_pb2.ImportCachesRequest
    ) -> control_pb2.ImportCachesResponse:
        _check_path(request.request.path)
        result = await self._ask(self._worker().take_over(request.request), _FILE_REFUSALS)
        return control_pb2.ImportCachesResponse(result=result)

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

    async def _ask(
        self,
        call: Awaitable[_Answer],
        refusals: Mapping[grpc.StatusCode, str] = _REFUSALS,
    ) -> _Answer:
        try:
            return await call
        except NotReadyError:
            raise self._down() from None
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, refusals) from None

    def _down(self) -> ControlError:
        child, now = self._worker().child, self._daemon.clock()
        return ControlError(
            grpc.StatusCode.UNAVAILABLE,
            "WORKER_DOWN",
            why_not_ready(child, now),
            {"worker": child.name},
            retry_seconds=seconds_to_ready(child, now),
        )

    def _failed(
        self, error: grpc.aio.AioRpcError, refusals: Mapping[grpc.StatusCode, str]
    ) -> ControlError:
        name = self._worker().child.name
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"The {name} worker gave no answer in time. Try again."
            return ControlError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "WORKER_BUSY", message, {"worker": name}
            )
        if error.code() in refusals:
            return ControlError(error.code(), refusals[error.code()], str(error.details()))
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


def _check_path(path: str) -> None:
    """The worker has a working folder of its own."""
    if not PurePath(path).is_absolute():
        raise ControlError(
            grpc.StatusCode.INVALID_ARGUMENT, "BAD_PATH", f"{path!r} is not an absolute path."
        )


def _check(chosen: worker_pb2.PruneFilter) -> None:
    if chosen.HasField("older_than") and chosen.older_than.ToNanoseconds() < 0:
        raise _bad_filter("older_than must not be negative.")
    if chosen.HasField("percent") and not 1 <= chosen.percent <= 100:
        raise _bad_filter("percent must be from 1 to 100.")
    if chosen.HasField("percent") and chosen.HasField("to_bytes"):
        raise _bad_filter("percent and to_bytes say the same thing in two ways: give one.")
    others = ("session_id", "older_than", "to_bytes", "percent", "all")
    if chosen.model and (chosen.tier or any(_is_given(chosen, name) for name in others)):
        raise _bad_filter("model takes all that is stored of a model: give it alone.")


def _is_given(chosen: worker_pb2.PruneFilter, name: str) -> bool:
    return name in {field.name for field, _ in chosen.ListFields()}


def _bad_filter(message: str) -> ControlError:
    return ControlError(grpc.StatusCode.INVALID_ARGUMENT, "BAD_FILTER", message)
