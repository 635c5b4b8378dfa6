"""Serves the cache verbs, `anyclaude.cache.v1`. The caches are read and changed on the MLX thread.

Each handler checks its request, gives the engine a function to run, and turns its errors into
statuses.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import PurePath
from typing import Final, TypeVar

import grpc

from anyclaude.cache.v1 import cache_pb2 as pb
from anyclaude.cache.v1 import cache_pb2_grpc
from anyclaude.messages.errors import ApiError
from anyclaude.mlx.caches import (
    UnknownCacheError,
    cache_tree,
    forget_answers,
    list_caches,
    pin_cache,
    prune_caches,
    stored_models,
)
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.exchange import Exchange
from anyclaude.mlx.jobs import warm_up_body
from anyclaude.mlx.kv.operations import PinnedTooMuchError
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.mlx.kv_disk.export_file import ExchangeError, Fault
from anyclaude.mlx.kv_explain.explain import Explainer
from anyclaude.mlx.labels import MAX_CHARACTERS, LabelError, Labels
from anyclaude.mlx.prompt.splice import SplicedTurns
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.service import WorkerService
from anyclaude.runtime.call_errors import CallError, rpc_method
from anyclaude.worker.v1.worker_pb2 import GenerateRequest, GenerateResponse

DEFAULT_PAGE_SIZE: Final = 1000
_FAULTS: Final[Mapping[Fault, tuple[grpc.StatusCode, str]]] = {
    Fault.MISSING: (grpc.StatusCode.NOT_FOUND, "NOTHING_THERE"),
    Fault.DAMAGED: (grpc.StatusCode.DATA_LOSS, "DAMAGED_EXPORT"),
    Fault.REFUSED: (grpc.StatusCode.FAILED_PRECONDITION, "EXPORT_REFUSED"),
    Fault.TOO_LARGE: (grpc.StatusCode.RESOURCE_EXHAUSTED, "EXPORT_TOO_LARGE"),
}

_Result = TypeVar("_Result")


class CacheService(cache_pb2_grpc.CacheServiceServicer):
    """The caches of one engine."""

    def __init__(
        self,
        engine: Engine,
        worker: WorkerService,
        exchange: Exchange,
        explainer: Explainer,
        disk: DiskTier | None,
        spliced: SplicedTurns | None,
        answers: StoredFolder | None,
    ) -> None:
        """
        Args:
            worker: computes prompts for `WarmCache`, and knows the memory.
            disk: None if caches are kept in memory only.
            spliced, answers: the answers that later prompts repeat, and their files.
        """
        self._engine = engine
        self._worker = worker
        self._exchange = exchange
        self._labels = Labels(engine.store, disk)
        self._explainer = explainer
        self._disk = disk
        self._spliced = spliced
        self._answers = answers

    @rpc_method
    async def ListCaches(self, request: pb.ListCachesRequest) -> pb.ListCachesResponse:
        caches = await self._on_store(self._labelled_caches)
        rest = [cache for cache in caches if cache.name > request.page_token]
        page = rest[: request.page_size or DEFAULT_PAGE_SIZE]
        return pb.ListCachesResponse(
            caches=page,
            next_page_token=page[-1].name if len(page) < len(rest) else "",
            memory=self._worker.memory(),
            models=() if request.page_token else stored_models(self._disk),
        )

    @rpc_method
    async def GetCache(self, request: pb.GetCacheRequest) -> pb.GetCacheResponse:
        for cache in await self._on_store(self._labelled_caches):
            if cache.name == request.name:
                return pb.GetCacheResponse(cache=cache)
        message = f'There is no cache "{request.name}". `anyclaudectl cache list` shows them all.'
        raise _unknown_cache(request.name, message)

    @rpc_method
    async def GetCacheTree(self, request: pb.GetCacheTreeRequest) -> pb.GetCacheTreeResponse:
        return await self._on_store(self._labelled_tree)

    @rpc_method
    async def ExplainCache(self, request: pb.ExplainCacheRequest) -> pb.ExplainCacheResponse:
        explanation = await self._on_store(lambda _: self._explainer.get(request.request_id))
        if explanation is None:
            raise CallError(
                grpc.StatusCode.NOT_FOUND,
                "UNKNOWN_REQUEST",
                f'The mlx worker remembers no request "{request.request_id}": it was answered '
                "elsewhere, long ago, or before the worker's start. `anyclaudectl requests` shows "
                "the newest.",
                {"request": request.request_id},
            )
        return pb.ExplainCacheResponse(explanation=explanation)

    @rpc_method
    async def PruneCaches(self, request: pb.PruneCachesRequest) -> pb.PruneCachesResponse:
        _check(request.filter)
        return await self._on_store(lambda store: self._prune(store, request))

    @rpc_method
    async def PinCache(self, request: pb.PinCacheRequest) -> pb.PinCacheResponse:
        name, pinned = request.name, request.pinned
        return await self._on_store(lambda store: pin_cache(store, name, pinned=pinned))

    @rpc_method
    async def LabelCache(self, request: pb.LabelCacheRequest) -> pb.LabelCacheResponse:
        _check_label(request.label)
        await self._on_store(lambda _: self._labels.put(request.name, request.label))
        return pb.LabelCacheResponse()

    @rpc_method
    async def WarmCache(self, request: pb.WarmCacheRequest) -> pb.WarmCacheResponse:
        """Runs a request whose answer has no tokens, as the Messages API's own warm-up does."""
        try:
            body = warm_up_body(request.body_json)
        except ApiError as error:
            raise _bad("BAD_REQUEST_BODY", error.message) from None
        last = GenerateResponse()

        async def keep_last(events: Iterable[GenerateResponse]) -> None:
            nonlocal last
            *_, last = events

        warm_up = GenerateRequest(request_id=f"warm_{uuid.uuid4().hex}", body_json=body)
        await self._worker.generate(warm_up, keep_last)
        if last.HasField("failed"):
            raise _bad("BAD_REQUEST_BODY", last.failed.message)
        return pb.WarmCacheResponse(usage=last.finished.usage)

    @rpc_method
    async def VerifyCaches(self, request: pb.VerifyCachesRequest) -> pb.VerifyCachesResponse:
        run = await self._on_store(lambda _: self._engine.verification(request.max_tokens))
        total = await self._on_store(lambda store: sum(1 for _ in store.tree.nodes()))
        while await self._on_store(lambda _: run.step()):
            pass
        return pb.VerifyCachesResponse(total_segments=total, **asdict(run.findings))

    @rpc_method
    async def ExportCaches(self, request: pb.ExportCachesRequest) -> pb.ExportCachesResponse:
        _check_path(request.path)
        if request.prefixes and request.session_id:
            raise _bad("BAD_FILTER", "prefixes belong to no session: give prefixes or session_id.")
        with _explained():
            return await self._exchange.export_caches(request)

    @rpc_method
    async def ImportCaches(self, request: pb.ImportCachesRequest) -> pb.ImportCachesResponse:
        _check_path(request.path)
        with _explained():
            return await self._exchange.import_caches(request)

    def _labelled_caches(self, store: KVStore) -> list[pb.Cache]:
        caches = list_caches(store)
        for cache in caches:
            cache.label = self._labels.of(cache.name)
        return caches

    def _labelled_tree(self, store: KVStore) -> pb.GetCacheTreeResponse:
        tree = cache_tree(store)
        for segment in tree.segments:
            segment.label = self._labels.of(segment.name, segment.prefix, *segment.lineages)
        return tree

    def _prune(self, store: KVStore, request: pb.PruneCachesRequest) -> pb.PruneCachesResponse:
        pruned = prune_caches(store, self._disk, request.filter, dry_run=not request.force)
        for cache in pruned.caches:
            cache.label = self._labels.of(cache.name)
        if request.force:
            self._labels.forget_pruned()
            if self._spliced is not None:
                forget_answers(store, self._spliced)
            if self._answers is not None and self._disk is not None and request.filter.model:
                self._answers.remove_models(stored=self._disk.models())
        return pruned

    async def _on_store(self, function: Callable[[KVStore], _Result]) -> _Result:
        """Runs `function` on the MLX thread, between two turns of requests."""
        store = self._engine.store
        with _explained():
            return await asyncio.wrap_future(self._engine.call(lambda: function(store)))


def _check(chosen: pb.PruneFilter) -> None:
    given = {field.name for field, _ in chosen.ListFields()}
    if chosen.HasField("older_than") and chosen.older_than.ToNanoseconds() < 0:
        raise _bad("BAD_FILTER", "older_than must not be negative.")
    if chosen.HasField("percent") and not 1 <= chosen.percent <= 100:
        raise _bad("BAD_FILTER", "percent must be from 1 to 100.")
    if {"percent", "to_bytes"} <= given:
        raise _bad("BAD_FILTER", "percent and to_bytes say the same thing in two ways: give one.")
    if chosen.model and given - {"model", "pinned"}:
        raise _bad("BAD_FILTER", "model takes all that is stored of a model: give it alone.")


def _check_label(label: str) -> None:
    """Refuses control characters, since terminals show the label."""
    if len(label) > MAX_CHARACTERS or not label.isprintable():
        message = f"A label is one line of at most {MAX_CHARACTERS} printable characters."
        raise _bad("BAD_LABEL", message)


def _check_path(path: str) -> None:
    """Refuses relative paths, since the worker's working folder is not the caller's."""
    if not PurePath(path).is_absolute():
        raise _bad("BAD_PATH", f"{path!r} is not an absolute path.")


@contextmanager
def _explained() -> Iterator[None]:
    """Turns the errors of a verb into statuses."""
    try:
        yield
    except UnknownCacheError as error:
        raise _unknown_cache(error.name, str(error)) from None
    except PinnedTooMuchError as error:
        raise CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, "PINNED_TOO_MUCH", str(error)) from None
    except LabelError as error:
        raise CallError(grpc.StatusCode.FAILED_PRECONDITION, "LABEL_NOT_KEPT", str(error)) from None
    except ExchangeError as error:
        raise CallError(*_FAULTS[error.fault], str(error)) from error


def _bad(reason: str, message: str) -> CallError:
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, reason, message)


def _unknown_cache(name: str, message: str) -> CallError:
    return CallError(grpc.StatusCode.NOT_FOUND, "UNKNOWN_CACHE", message, {"cache": name})
