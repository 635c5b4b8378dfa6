"""The loop of the MLX thread.

Requests arrive through a thread-safe queue of commands and run interleaved: in order of arrival,
each gets a turn, which is a prefill chunk or a few decode steps. Requests that decode have their
turn together if they can share passes of the model (`batch`). While there is nothing else to do,
one job may compute ahead what a next prompt will begin with; any command ends it (`ahead`). All MLX
work happens on this thread, which is the process's main one: a process with MLX on another thread
aborts when it exits.

An error that no request caused ends the loop: the supervisor starts a fresh process, and the front
end submits the running requests to it, since their connections ended without a response.
"""

import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

import structlog

import mlx.core as mx
from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.messages.turnover import Turnover
from anyclaude.mlx.adapter import LanguageModel
from anyclaude.mlx.engine.admission import Admission
from anyclaude.mlx.engine.ahead import given_up, not_done, why_not
from anyclaude.mlx.engine.batch import Batch
from anyclaude.mlx.engine.chunks import ChunkSizes
from anyclaude.mlx.engine.drafts import DraftLimits, PassCosts, pass_clock
from anyclaude.mlx.engine.generation import DecodingError, Generation
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.engine.status import EngineStatus
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.verify import Verification
from anyclaude.mlx.memory import Preflight, Pressure
from anyclaude.runtime.pulse import Phase, Pulse
from anyclaude.runtime.settings import MlxSettings
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Command = Callable[[], None]

RETRY_AFTER_SECONDS = 5
COUNT_SECONDS = 0.25
# Without a command for so long, a part of the probe of shared passes runs.
PROBE_AFTER_SECONDS = 0.5


class Engine:
    """Runs jobs. `submit`, `cancel`, `call`, `relieve` and `stop` may be called on any thread.

    `status` may be read on any thread: it is replaced after each turn, never changed.
    """

    def __init__(
        self,
        model: LanguageModel,
        store: KVStore,
        settings: MlxSettings,
        *,
        eos_token_ids: frozenset[int],
        preflight: Preflight | None = None,
        chunks: ChunkSizes | None = None,
        pass_costs: PassCosts | None = None,
        batch: Batch | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.store = store
        self._chunks = chunks or ChunkSizes(settings)
        self._pulse = pulse or Pulse()
        self._model = model
        self._settings = settings
        self._eos = eos_token_ids
        self._drafts = DraftLimits(settings.draft_tokens, settings.draft_match_tokens)
        self._pass_costs = pass_costs or PassCosts()
        self._clock = pass_clock()
        self._batch = batch or Batch(
            model,
            store.kv_bits,
            max_rows=min(settings.max_batch, settings.max_running_requests),
            clock=self._clock,
        )
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._admission = Admission(store, settings, self._chunks, preflight)
        self._running: deque[Generation] = deque()
        self._turnover = Turnover()
        # Runs only while nothing runs or waits.
        self._ahead: Generation | None = None
        self._stop_at: float | None = None
        self.status = EngineStatus()
        self._counted = 0.0
        self._publish()

    def submit(self, job: Job) -> None:
        self._commands.put(lambda: self._accept(job))

    def cancel(self, request_id: str) -> None:
        """Ends a request within one turn; what it prefilled is kept."""
        self._commands.put(lambda: self._cancel(request_id))

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Runs `function` on the MLX thread between two turns."""
        future: Future[Result] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:  # noqa: BLE001 - the caller's to handle, through the future
                    future.set_exception(error)

        self._commands.put(run)
        return future

    def verification(self, max_tokens: int) -> Verification:
        """A comparison of kept caches with fresh runs; for the MLX thread, as are its steps.

        Bits are compared where they do not depend on how many tokens a pass computes. Elsewhere
        chunks, drafts and shared passes leave other last bits in the caches, which are measured.
        """
        return Verification(
            self._model,
            self.store,
            chunk_tokens=self._settings.shared_prefill_chunk_tokens,
            max_tokens=max_tokens,
            exact=mx.default_device() == mx.cpu and not self._batch.depends_on_shape,
        )

    def relieve(self, pressure: Pressure) -> None:
        """Moves idle caches out of memory: the oldest part, or all when that is critical."""
        budget = self.store.budget
        fraction = 1.0 if pressure is Pressure.CRITICAL else budget.prune_fraction

        def evict() -> None:
            before = budget.nbytes
            budget.free(int(fraction * before))
            mx.clear_cache()
            log.info("caches left memory", bytes=before - budget.nbytes)

        self._commands.put(evict)

    def stop(self, grace_seconds: float) -> None:
        """Lets running requests continue for `grace_seconds`; the next worker gets the rest."""

        def begin() -> None:
            self._stop_at = time.monotonic() + grace_seconds

        self._commands.put(begin)

    def run(self) -> None:
        """Serves until stopped. Raises whatever MLX raised; then requests have no response yet."""
        while not self._finished():
            self.step()
        self._end_all()

    def step(self) -> None:
        """One round: commands, admissions, a turn. Waits for a command when there is no work."""
        self._take_commands()
        self._start_waiting()
        self._turn()
        self._publish()

    def _publish(self, **changes: int) -> None:
        """Replaces the status; a busy engine counts bytes rarely, since that reads all caches."""
        now, budget = time.monotonic(), self.store.budget
        if not self._running or now - self._counted > COUNT_SECONDS:
            self._counted = now
            budget.tidy()
            changes["cache_bytes"] = budget.nbytes
            changes["caches"] = self.store.count()
        self.status = replace(
            self.status,
            running_requests=len(self._running),
            queued_requests=len(self._admission),
            refused_requests=self._admission.refused,
            evictions=budget.evictions,
            cache_limit_bytes=budget.limit_bytes,
            bytes_per_token=budget.bytes_per_token,
            batch=self._batch.status,
            **changes,
        )

    def _finished(self) -> bool:
        if self._stop_at is None:
            return False
        idle = not self._running and not self._admission
        return idle or time.monotonic() >= self._stop_at

    def _take_commands(self) -> None:
        """Runs every waiting command; with nothing to do but a probe, waits for one first."""
        idle = not (self._running or self._admission or self._ahead) and self._stop_at is None
        timeout = PROBE_AFTER_SECONDS if self._batch.may_probe else None
        try:
            while True:
                if idle:
                    self._pulse.step(Phase.IDLE)
                command = self._commands.get(idle, timeout)
                self._pulse.step(Phase.COMMAND)
                self._give_up_ahead()
                command()
                idle = False
        except queue.Empty:
            return

    def _accept(self, job: Job) -> None:
        if job.ahead:
            self._start_ahead(job)
            return
        full = len(self._admission) >= self._settings.max_queued_requests
        if self._stop_at is not None or (full and not self._has_free_slot()):
            job.emit(_stops() if self._stop_at is not None else self._full())
            return
        self._admission.add(job)

    def _full(self) -> pb.GenerateResponse:
        seconds = self._turnover.retry_after_seconds(len(self._running))
        error = overloaded("The inference worker is busy: its queue is full.", seconds)
        return pb.GenerateResponse(failed=error.to_failed())

    def _has_free_slot(self) -> bool:
        return len(self._running) < self._settings.max_running_requests

    def _start_waiting(self) -> None:
        while self._has_free_slot() and (job := self._admission.next(self._running)):
            self._start(job)

    def _start(self, job: Job) -> None:
        generation = self._generation(job)
        self._running.append(generation)
        self._publish()
        # It starts at once, so that it claims its memory before the next job is admitted.
        self._advance(generation, Generation.turn)

    def _start_ahead(self, job: Job) -> None:
        """Starts a job that computes ahead, unless it is not worth it or does not fit."""
        if self._running or self._admission or self._stop_at is not None:
            job.emit(given_up("Requests are running."))
        elif why := why_not(job, self.store):
            job.emit(not_done(why))
        elif self._admission.missing_bytes(job):
            job.emit(not_done("The machine is short of memory."))
        else:
            self._ahead = self._generation(job)

    def _give_up_ahead(self) -> None:
        """Ends computing ahead; what was computed is kept."""
        if self._ahead is not None:
            generation = self._ahead
            generation.cancel()
            self._end_ahead(generation)
            self._publish(ahead_given_up=self.status.ahead_given_up + 1)
            generation.job.emit(given_up("Something else came."))

    def _end_ahead(self, generation: Generation) -> None:
        self._ahead = None
        self.store.budget.fit(0)
        computed = self.status.ahead_computed_tokens + generation.prefilled_tokens
        self._publish(ahead_computed_tokens=computed)

    def _generation(self, job: Job) -> Generation:
        return Generation(
            job,
            self._model,
            self.store,
            eos_token_ids=self._eos,
            chunk_tokens=self._chunk_tokens,
            timed=self._chunks.timed,
            decode_steps_per_turn=self._settings.decode_steps_per_turn,
            drafts=self._drafts,
            pass_costs=self._pass_costs,
        )

    def _chunk_tokens(self, context_tokens: int) -> int:
        decoding = any(generation.decoding for generation in self._running)
        running = max(1, len(self._running))
        return self._chunks.tokens(context_tokens, running=running, decoding=decoding)

    def _turn(self) -> None:
        """Gives the next running request one turn, or all that decode a turn together."""
        if not self._running:
            if self._ahead is not None:
                self._turn_ahead(self._ahead)
            elif self._batch.may_probe:
                self._pulse.step(Phase.PREFILL)
                self._batch.probe()
            return
        generation = self._running[0]
        decoding = [g for g in self._running if g.decoding] if generation.decoding else []
        if self._batch.rows(len(decoding)) > 1:
            self._turn_together(decoding)
            return
        self._running.rotate(-1)
        self._turn_alone(generation)

    def _turn_together(self, generations: list[Generation]) -> None:
        for generation in generations:
            self._running.remove(generation)
        self._running.extend(generations)
        for _ in range(self._settings.decode_steps_per_turn):
            generations = [g for g in generations if g in self._running]
            self._step_together(generations)

    def _step_together(self, generations: list[Generation]) -> None:
        """Computes the next token of each: in shared passes, or alone where drafts come with it."""
        cost = self._batch.token_cost(len(generations))
        alone = {g.decoding: g for g in generations if g.decoding}
        shareable = [decoding for decoding in alone if decoding.can_share(cost)]
        for rows in self._batch.shared(shareable):
            for decoding in rows:
                self._advance(alone.pop(decoding), Generation.step)
        for generation in alone.values():
            self._advance(generation, Generation.step)

    def _turn_alone(self, generation: Generation) -> None:
        """Runs a turn, and notes what a token costs in passes of its own, without drafts."""
        decoding, began = generation.decoding, self._clock()
        passes = decoding.passes if decoding else 0
        tokens = generation.usage.output_tokens
        self._advance(generation, Generation.turn)
        tokens = generation.usage.output_tokens - tokens
        if decoding and tokens == decoding.passes - passes > 0:
            self._batch.add_single((self._clock() - began) / tokens)

    def _turn_ahead(self, generation: Generation) -> None:
        self._pulse.step(Phase.PREFILL)
        if not generation.turn():
            self._end_ahead(generation)

    def _advance(self, generation: Generation, run: Callable[[Generation], bool]) -> None:
        """Runs a step or a turn of a request."""
        self._pulse.step(Phase.DECODE if generation.decoding else Phase.PREFILL)
        try:
            goes_on = run(generation)
        except DecodingError as error:
            log.exception("answer could not be decoded", request_id=generation.job.request_id)
            failure = ApiError(500, f"The answer could not be decoded: {error}")
            generation.job.emit(pb.GenerateResponse(failed=failure.to_failed()))
            goes_on = False
        if not goes_on:
            self._remove(generation)

    def _remove(self, generation: Generation) -> None:
        self._running.remove(generation)
        self._turnover.ended(time.monotonic() - generation.created)
        self.store.budget.fit(0)
        self.status = self.status.ended(generation)
        self._publish()

    def _cancel(self, request_id: str) -> None:
        self._admission.remove(request_id)
        for generation in [g for g in self._running if g.job.request_id == request_id]:
            generation.cancel()
            self._remove(generation)

    def _end_all(self) -> None:
        """Gives every request up to the next worker; what was computed for it is kept."""
        event = _stops()
        for job in [*(generation.job for generation in self._running), *self._admission.take_all()]:
            job.emit(event)
        for generation in self._running:
            generation.cancel()
        self._running.clear()


def _stops() -> pb.GenerateResponse:
    failed = overloaded("The inference worker is stopping.", RETRY_AFTER_SECONDS).to_failed()
    failed.worker_stops = True
    return pb.GenerateResponse(failed=failed)
