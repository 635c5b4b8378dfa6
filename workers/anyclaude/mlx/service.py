"""The worker contract, served from a side thread; MLX work goes to the engine on the main one.

Jobs are made in one executor thread, with a tokenizer of its own (`jobs`). A refused request is a
Failed event.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
import structlog

from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import (
    parse_count_tokens_request,
)
from anyclaude.messages.websearch import not_searched
from anyclaude.mlx import memory
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.caches import (
    cache_tree,
    disk_status,
    list_caches,
    pin_cache,
    prune_caches,
)
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.exchange import Exchange
from anyclaude.mlx.jobs import JobMaker, NothingToGenerate
from anyclaude.mlx.kv.operations import PinnedTooMuchError
from anyclaude.mlx.kv_disk.exchange.faults import ExchangeError, Fault
from anyclaude.mlx.machine import Machine
from anyclaude.mlx.model import Model
from anyclaude.mlx.pressure import PressureWatch
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.served import ModelChange
from anyclaude.mlx.warming import warm_up_body
from anyclaude.runtime.streams import Emit
from anyclaude.worker.v1 import worker_pb2 as pb
from anyclaude.worker.v1 import worker_pb2_grpc

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_FAULTS: Final[Mapping[Fault, grpc.StatusCode]] = {
    Fault.MISSING: grpc.StatusCode.NOT_FOUND,
    Fault.DAMAGED: grpc.StatusCode.DATA_LOSS,
    Fault.REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Fault.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    """Serves one engine."""

    def __init__(
        self,
        model: Model,
        engine: Engine,
        *,
        weights_bytes: int,
        decode_tokenizer: TokenizerWrapper,
        renderer: PromptRenderer,
        exchange: Exchange,
        machine: Machine,
        pressure: PressureWatch,
        change: ModelChange | None,
        notice_seconds: float,
    ) -> None:
        self._model = model
        self._engine = engine
        self._weights_bytes = weights_bytes
        self._renderer = renderer
        self._jobs = JobMaker(model, renderer, decode_tokenizer)
        self._exchange = exchange
        self._machine = machine
        self._pressure = pressure
        # The latest one, whenever it was.
        self._change = change
        self._notice_seconds = notice_seconds
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="render")
        # Calls of Generate that are not over, those still being rendered included.
        self._calls = 0

    async def generate(self, request: pb.GenerateRequest, send: Emit) -> None:
        """Answers one Messages request by events."""
        self._calls += 1
        try:
            await self._generate(request, send)
        finally:
            self._calls -= 1

    async def _generate(self, request: pb.GenerateRequest, send: Emit) -> None:
        events: asyncio.Queue[pb.GenerateResponse] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(event: pb.GenerateResponse) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        try:
            job = await loop.run_in_executor(self._rendering, self._jobs.job, request, emit)
        except ApiError as error:
            await send([pb.GenerateResponse(failed=error.to_failed())])
            return
        except NothingToGenerate as answer:
            await send(not_searched(answer.prompt_tokens))
            return
        self._engine.submit(job)
        try:
            is_over = False
            while not is_over:
                ready = [await events.get()]
                while not events.empty():
                    ready.append(events.get_nowait())
                is_over = ready[-1].HasField("finished") or ready[-1].HasField("failed")
                await send(ready)
        finally:
            # Does nothing to a request that is over.
            self._engine.cancel(request.request_id)

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTokensResponse:
        loop = asyncio.get_running_loop()
        try:
            prompt = await loop.run_in_executor(self._rendering, self._counted, request.body_json)
        except ApiError as error:
            return pb.CountTokensResponse(failed=error.to_failed())
        return pb.CountTokensResponse(input_tokens=len(prompt.token_ids))

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetStatusResponse:
        load, totals = self._engine.load, self._engine.totals
        return pb.GetStatusResponse(
            model=self._model.info,
            memory=pb.MemoryStatus(
                active_bytes=memory.active_bytes(),
                peak_bytes=memory.peak_bytes(),
                weights_bytes=self._weights_bytes,
                cache_bytes=self._engine.cache_bytes,
                cache_limit_bytes=self._engine.store.room.limit_bytes,
                available_bytes=self._machine.available_bytes(),
                prompt_bytes=int(memory.PROMPT_TOKENS * self._engine.store.room.bytes_per_token),
                footprint_bytes=self._machine.footprint_bytes(),
                pressure=f"MEMORY_PRESSURE_{self._pressure.level.name}",
                refused_requests=self._engine.refused,
            ),
            running_requests=load.running,
            queued_requests=max(load.queued, self._calls - load.running),
            totals=pb.TokenTotals(
                reused_tokens=totals.reused,
                computed_tokens=totals.computed,
                generated_tokens=totals.generated,
                evictions=self._engine.store.room.evictions,
            ),
            disk=disk_status(self._engine.store),
            model_change=self._model_change(),
        )

    def _model_change(self) -> pb.ModelChange | None:
        change = self._change
        if change is None or time.time() - change.at > self._notice_seconds:
            return None
        told = pb.ModelChange(
            previous_model=change.previous_model,
            disk_records=change.disk_records,
            disk_bytes=change.disk_bytes,
        )
        told.time.FromMilliseconds(int(change.at * 1000))
        return told

    async def ListCaches(
        self, request: pb.ListCachesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListCachesResponse:
        return await self._on_engine(lambda: list_caches(self._engine.store))

    async def PruneCaches(
        self, request: pb.PruneCachesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PruneCachesResponse:
        store = self._engine.store
        try:
            return await self._on_engine(
                lambda: prune_caches(store, request.filter, dry_run=request.dry_run)
            )
        except LookupError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            raise

    async def GetCacheTree(
        self, request: pb.GetCacheTreeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetCacheTreeResponse:
        return await self._on_engine(lambda: cache_tree(self._engine.store))

    async def PinCache(
        self, request: pb.PinCacheRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PinCacheResponse:
        store = self._engine.store
        try:
            answer = await self._on_engine(
                lambda: pin_cache(store, request.name, pinned=request.pinned)
            )
        except PinnedTooMuchError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            raise
        except LookupError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            raise
        return answer

    async def WarmCache(
        self, request: pb.WarmCacheRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.WarmCacheResponse:
        """A request whose answer has no tokens, as the API's own warm-up."""
        try:
            body = warm_up_body(request.body_json)
        except ApiError as error:
            return pb.WarmCacheResponse(failed=error.to_failed())
        asked = pb.GenerateRequest(request_id=f"warm_{uuid.uuid4().hex}", body_json=body)
        said: list[pb.GenerateResponse] = []

        async def hear(events: Iterable[pb.GenerateResponse]) -> None:
            said.extend(events)

        await self.generate(asked, hear)
        last = said[-1]
        if last.HasField("failed"):
            return pb.WarmCacheResponse(failed=last.failed)
        return pb.WarmCacheResponse(usage=last.finished.usage)

    async def VerifyCaches(
        self, request: pb.VerifyCachesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.VerifyCachesResponse:
        run = self._engine.verification(request.max_tokens)
        total = await self._on_engine(lambda: sum(1 for _ in self._engine.store.tree.nodes()))
        while await self._on_engine(run.step):
            pass
        return pb.VerifyCachesResponse(
            segments=run.findings.segments,
            computed_tokens=run.findings.computed_tokens,
            total_segments=total,
            wrong=run.findings.wrong,
        )

    async def ExportCaches(
        self, request: pb.ExportCachesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExportCachesResponse:
        try:
            return await self._exchange.export(request)
        except ExchangeError as error:
            await context.abort(_FAULTS[error.fault], str(error))
            raise

    async def ImportCaches(
        self, request: pb.ImportCachesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ImportCachesResponse:
        try:
            return await self._exchange.take_over(request)
        except ExchangeError as error:
            await context.abort(_FAULTS[error.fault], str(error))
            raise

    async def _on_engine(self, function: Callable[[], Result]) -> Result:
        """Runs it on the MLX thread, between two turns."""
        return await asyncio.wrap_future(self._engine.call(function))

    async def ExplainRequest(
        self, request: pb.ExplainRequestRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExplainRequestResponse:
        explanation = self._engine.store.explainer.get(request.request_id)
        return pb.ExplainRequestResponse(explanation=explanation)

    def _counted(self, body: bytes) -> Prompt:
        return self._renderer.render(parse_count_tokens_request(body))
