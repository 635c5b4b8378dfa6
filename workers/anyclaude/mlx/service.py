"""The worker contract, served from a side thread; MLX work goes to the engine on the main one.

Jobs are made in one executor thread, with a tokenizer of its own (`jobs`). A refused request is a
Failed event. The cache verbs are in `cache_service`.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import grpc.aio
import structlog

import mlx.core as mx
from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import parse_count_tokens_request
from anyclaude.messages.websearch import not_searched
from anyclaude.messages.windows import CLAUDE_CODE_PROMPT_TOKENS, window_problem
from anyclaude.mlx import memory
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.ahead import ComputingAhead
from anyclaude.mlx.blas import blas
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.jobs import Answering, JobMaker, NothingToGenerate
from anyclaude.mlx.kv_disk import DiskStatus, DiskTier
from anyclaude.mlx.kv_explain.explain import Explainer
from anyclaude.mlx.memory import Machine, Pressure, PressureWatch
from anyclaude.mlx.model import Model
from anyclaude.mlx.power import on_battery
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.prompt.length import LARGE_BODY_BYTES, LengthCheck
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.served import ModelChange
from anyclaude.runtime.settings import Settings
from anyclaude.runtime.streams import Emit
from anyclaude.worker.v1 import worker_pb2 as pb
from anyclaude.worker.v1 import worker_pb2_grpc

log = structlog.get_logger(__name__)


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
        explainer: Explainer,
        disk: DiskTier | None,
        answers: StoredFolder | None,
        machine: Machine,
        pressure: PressureWatch,
        change: ModelChange | None,
        settings: Settings,
    ) -> None:
        self._model = model
        self._engine = engine
        self._weights_bytes = weights_bytes
        self._blas = blas()
        self._renderer = renderer
        self._jobs = JobMaker(
            model, renderer, decode_tokenizer, explainer, settings.grammar, settings.answers
        )
        self._disk = disk
        self._answers = answers
        self._machine = machine
        self._pressure = pressure
        # The latest change of model, however long ago.
        self._change = change
        self._notice_seconds = settings.cache.notice_seconds
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="render")
        # A large request is looked at here first, so that small ones are rendered meanwhile.
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="measure")
        window = model.info.context_window_tokens
        self._length = LengthCheck(model.new_tokenizer, window, window_problem(window))
        # Running calls of `generate`, including those whose prompt is still being rendered.
        self._calls = 0
        self._compute_ahead = settings.mlx.compute_ahead
        self._ahead = ComputingAhead(
            engine,
            self._job_ahead,
            is_allowed=self._may_compute_ahead,
            after_seconds=settings.mlx.compute_ahead_after_seconds,
            max_conversations=settings.mlx.max_running_requests,
        )

    async def generate(self, request: pb.GenerateRequest, send: Emit) -> None:
        """Answers one Messages request with events."""
        self._calls += 1
        self._ahead.pause()
        try:
            await self._generate(request, send)
        finally:
            self._calls -= 1
            if not self._calls:
                self._ahead.resume()

    async def _generate(self, request: pb.GenerateRequest, send: Emit) -> None:
        events: asyncio.Queue[pb.GenerateResponse] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(event: pb.GenerateResponse) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        try:
            await self._check_length(request.body_json)
            answering = await loop.run_in_executor(self._rendering, self._jobs.job, request, emit)
        except ApiError as error:
            await send([pb.GenerateResponse(failed=error.to_failed())])
            return
        except NothingToGenerate as answer:
            await send(not_searched(answer.prompt_tokens))
            return
        self._ahead.asked(answering.job.lineage)
        self._engine.submit(answering.job)
        try:
            is_over = False
            while not is_over:
                ready = [await events.get()]
                while not events.empty():
                    ready.append(events.get_nowait())
                if ready[-1].HasField("finished"):
                    ready[-1].finished.applied_edits.extend(answering.applied_edits)
                is_over = ready[-1].HasField("finished") or ready[-1].HasField("failed")
                if self._expects_question(answering.job, ready[-1]):
                    self._ahead.answered(answering)
                await send(ready)
        finally:
            # Has no effect on a request that has ended.
            self._engine.cancel(request.request_id)

    async def _check_length(self, body: bytes) -> None:
        """Raises ApiError for a large prompt that certainly fills the window."""
        if len(body) >= LARGE_BODY_BYTES:

            def check() -> None:
                self._length.check(parse_count_tokens_request(body))

            await asyncio.get_running_loop().run_in_executor(self._measuring, check)

    def _expects_question(self, job: Job, event: pb.GenerateResponse) -> bool:
        """Whether a question may follow: after a complete answer of a main conversation."""
        ends = event.finished.stop_reason == pb.STOP_REASON_END_TURN
        is_main = job.keep and not job.lineage.agent_id
        return ends and is_main and self._compute_ahead != "never"

    async def _job_ahead(
        self, answered: Answering, emit: Callable[[pb.GenerateResponse], None]
    ) -> Job | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._rendering, self._jobs.job_ahead, answered, emit)

    async def _may_compute_ahead(self) -> bool:
        if self._pressure.level is not Pressure.NORMAL:
            return False
        return self._compute_ahead == "always" or not await asyncio.to_thread(on_battery)

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTokensResponse:
        loop = asyncio.get_running_loop()
        try:
            await self._check_length(request.body_json)
            prompt = await loop.run_in_executor(self._rendering, self._counted, request.body_json)
        except ApiError as error:
            return pb.CountTokensResponse(failed=error.to_failed())
        cleared = sum(edit.cleared_input_tokens for edit in prompt.applied_edits)
        return pb.CountTokensResponse(
            input_tokens=len(prompt.token_ids), cleared_input_tokens=cleared
        )

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetStatusResponse:
        engine = self._engine.status
        return pb.GetStatusResponse(
            model=self._model.info,
            memory=self.memory(),
            running_requests=engine.running_requests,
            queued_requests=max(engine.queued_requests, self._calls - engine.running_requests),
            totals=pb.TokenTotals(
                reused_tokens=engine.reused_tokens,
                computed_tokens=engine.computed_tokens,
                generated_tokens=engine.generated_tokens,
                decode_passes=engine.decode_passes,
                drafted_tokens=engine.drafted_tokens,
                accepted_tokens=engine.accepted_tokens,
                evictions=engine.evictions,
                ahead_computed_tokens=engine.ahead_computed_tokens,
                ahead_used_tokens=engine.ahead_used_tokens,
                ahead_given_up=engine.ahead_given_up,
            ),
            disk=self._disk_status(),
            model_change=self._model_change(),
            answer_repairs={kind.value: count for kind, count in self._jobs.repairs.copy().items()},
            caches=engine.caches,
            loosened_schemas=self._jobs.loosened_schemas,
            batch=pb.BatchStatus(**asdict(engine.batch)),
            blas=self._blas,
        )

    def memory(self) -> pb.MemoryStatus:
        """Memory of the worker and of the machine now."""
        engine = self._engine.status
        return pb.MemoryStatus(
            active_bytes=mx.get_active_memory(),
            peak_bytes=mx.get_peak_memory(),
            weights_bytes=self._weights_bytes,
            cache_bytes=engine.cache_bytes,
            cache_limit_bytes=engine.cache_limit_bytes,
            available_bytes=self._machine.available_bytes(),
            prompt_bytes=int(CLAUDE_CODE_PROMPT_TOKENS * engine.bytes_per_token),
            footprint_bytes=self._machine.footprint_bytes(),
            pressure=f"MEMORY_PRESSURE_{self._pressure.level.name}",
            refused_requests=engine.refused_requests,
            working_set_bytes=memory.working_set_bytes(),
        )

    def _model_change(self) -> pb.ModelChange | None:
        change = self._change
        if change is None or time.time() - change.at > self._notice_seconds:
            return None
        answer = pb.ModelChange(
            previous_model=change.previous_model,
            disk_records=change.disk_records,
            disk_bytes=change.disk_bytes,
        )
        answer.time.FromMilliseconds(int(change.at * 1000))
        return answer

    def _counted(self, body: bytes) -> Prompt:
        return self._renderer.render(parse_count_tokens_request(body), counting=True)

    def _disk_status(self) -> pb.DiskStatus | None:
        if self._disk is None:
            return None
        damaged_answers = self._answers.damaged if self._answers is not None else 0
        return _disk_status(self._disk.status(), damaged_answers)


def _disk_status(status: DiskStatus, damaged_answers: int) -> pb.DiskStatus:
    return pb.DiskStatus(
        folder=str(status.folder),
        state=f"DISK_STATE_{status.state.name}",
        records=status.records,
        bytes=status.nbytes,
        budget_bytes=status.budget_bytes,
        pending_bytes=status.pending_bytes,
        pending_writes=status.pending_writes,
        written_records=status.written,
        loaded_records=status.loaded,
        failed_writes=status.failed_writes,
        skipped_writes=status.skipped_writes,
        quarantined_records=status.quarantined,
        last_error=status.last_error,
        other_version_records=status.other_versions,
        damaged_answers=damaged_answers,
    )
