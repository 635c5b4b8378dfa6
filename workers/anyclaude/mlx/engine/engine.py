"""The loop of the MLX thread.

Requests come in through a thread-safe queue of commands and run interleaved: each gets a turn in
order of arrival, a prefill chunk or a few decode steps. All MLX work happens here, on one thread,
the process's main one (leaving a process whose MLX thread is another aborts).

An error that no request is to blame for fails all running requests, says so, and ends the loop: the
supervisor starts a fresh process.
"""

import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import structlog

from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.mlx import memory
from anyclaude.mlx.adapter import LanguageModel
from anyclaude.mlx.engine.generation import DecodingError, Generation
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.engine.preflight import Preflight
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.verify import Verification
from anyclaude.mlx.kv_disk.records import SegmentShape
from anyclaude.mlx.machine import Pressure
from anyclaude.mlx.tokens import common_prefix
from anyclaude.runtime.settings import MlxSettings
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Command = Callable[[], None]

RETRY_AFTER_SECONDS = 5
PUBLISH_SECONDS = 0.25


@dataclass(frozen=True)
class Load:
    """How busy the engine is."""

    running: int
    queued: int


@dataclass
class Totals:
    """Tokens since the start."""

    reused: int = 0
    computed: int = 0
    generated: int = 0


class Engine:
    """Runs jobs. `submit`, `cancel`, `call` and `stop` may come from any thread."""

    def __init__(
        self,
        model: LanguageModel,
        store: KVStore,
        settings: MlxSettings,
        *,
        eos_token_ids: frozenset[int],
        preflight: Preflight | None = None,
    ) -> None:
        self.store = store
        self._preflight = preflight
        self._model = model
        self._settings = settings
        self._eos = eos_token_ids
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._running: deque[Generation] = deque()
        self._stop_at: float | None = None
        self._over = False
        self.totals = Totals()
        # Bytes of all caches, for readers on other threads; counting them takes a walk over all
        # layers, so a busy engine does it now and then.
        self.cache_bytes = 0
        # Number of conversations and stable prefixes, published with it.
        self.cache_count = 0
        self._published = 0.0

    @property
    def load(self) -> Load:
        return Load(len(self._running), len(self._waiting))

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
        """A comparison of kept caches with fresh runs; its steps are for the MLX thread."""
        return Verification(
            self._model,
            self.store,
            chunk_tokens=self._settings.shared_prefill_chunk_tokens,
            max_tokens=max_tokens,
        )

    def segment_shape(self) -> SegmentShape | None:
        """What a segment of the model looks like; MLX thread only."""
        return SegmentShape.of(self._model, self.store.kv_bits)

    def relieve(self, pressure: Pressure) -> None:
        """Moves idle caches out of memory: the oldest part, or all when that is critical."""
        fraction = 1.0 if pressure is Pressure.CRITICAL else self.store.room.prune_fraction

        def shed() -> None:
            held = self.store.room.nbytes
            self.store.room.shed(int(fraction * held))
            memory.release_pool()
            log.info("caches left memory", bytes=held - self.store.room.nbytes)

        self._commands.put(shed)

    @property
    def refused(self) -> int:
        """Requests that did not fit into the machine's memory, since the start."""
        return self._preflight.refused if self._preflight else 0

    def stop(self, grace_seconds: float) -> None:
        """Lets running requests go on for `grace_seconds`, then fails what is left."""

        def begin() -> None:
            self._stop_at = time.monotonic() + grace_seconds

        self._commands.put(begin)

    def run(self) -> None:
        """Serves until stopped. Raises whatever MLX raised, after failing every request."""
        try:
            while not self._finished():
                self.step()
        except BaseException:
            self._fail_all("The inference worker met an error and restarts.")
            raise
        self._fail_all("The inference worker is stopping.")

    def step(self) -> None:
        """One round: commands, admissions, a turn. Waits for a command when there is no work."""
        self._take_commands()
        self._start_waiting()
        self._turn()
        self._publish()

    def _publish(self) -> None:
        now = time.monotonic()
        if not self._running or now - self._published > PUBLISH_SECONDS:
            self._published = now
            self.store.room.drop_idle_live_caches()
            self.cache_bytes = self.store.room.nbytes
            prefixes = sum(bool(node.stable_digest) for node in self.store.tree.nodes())
            self.cache_count = len(self.store.lineages()) + prefixes

    def _finished(self) -> bool:
        if self._stop_at is None:
            return False
        idle = not self._running and not self._waiting
        return idle or time.monotonic() >= self._stop_at

    def _take_commands(self) -> None:
        """Runs every waiting command; with nothing else to do, waits for one."""
        idle = not self._running and not self._waiting and self._stop_at is None
        try:
            while True:
                self._commands.get(block=idle)()
                idle = False
        except queue.Empty:
            return

    def _accept(self, job: Job) -> None:
        full = len(self._waiting) >= self._settings.max_queued_requests
        if self._stop_at is not None or (full and not self._has_free_slot()):
            why = "stopping" if self._stop_at is not None else "busy: its queue is full"
            error = overloaded(f"The inference worker is {why}.", RETRY_AFTER_SECONDS)
            job.emit(pb.GenerateResponse(failed=error.to_failed()))
            return
        self._waiting.append(job)

    def _has_free_slot(self) -> bool:
        return len(self._running) < self._settings.max_running_requests

    def _start_waiting(self) -> None:
        """Starts jobs in order of arrival; one that waits for a twin lets others pass."""
        for job in list(self._waiting):
            if not self._has_free_slot():
                return
            if self._is_being_computed(job):
                continue
            fits = self.store.room.make_for(job.lineage, job.token_ids, keep=job.keep)
            # A request that runs alone is let in whatever it needs: waiting would not help it.
            if not fits and self._running:
                return
            missing = self._missing_bytes(job)
            if missing and self._running:
                return
            self._waiting.remove(job)
            if missing:
                self._refuse(job)
            else:
                self._start(job)

    def _start(self, job: Job) -> None:
        generation = self._generation(job)
        self._running.append(generation)
        # At once: its cache is then lent out, and counted before the next job is let in.
        self._advance(generation)

    def _missing_bytes(self, job: Job) -> int:
        """What the machine lacks for the job once idle caches have left memory for it."""
        if self._preflight is None:
            return 0
        missing = self._preflight.missing_bytes(self._needed_bytes(job))
        if not missing:
            return 0
        self.store.room.shed(missing)
        memory.release_pool()
        return self._preflight.missing_bytes(self._needed_bytes(job))

    def _needed_bytes(self, job: Job) -> int:
        return self.store.room.needed_bytes(job.lineage, job.token_ids, keep=job.keep)

    def _refuse(self, job: Job) -> None:
        assert self._preflight is not None
        error = self._preflight.refusal(self._needed_bytes(job))
        log.warning("request does not fit into memory", request_id=job.request_id)
        job.emit(pb.GenerateResponse(failed=error.to_failed()))

    def _is_being_computed(self, job: Job) -> bool:
        """Whether a running request is prefilling tokens that the job could soon reuse.

        A retry whose first try still runs, or subagents that start at once: the later one waits
        until the shared part is there instead of computing it again.
        """
        prompt = job.token_ids
        wanted = max(
            (
                common_prefix(running.job.token_ids, prompt)
                for running in self._running
                if not running.decoding
            ),
            default=0,
        )
        if wanted < self._settings.prefill_chunk_tokens:
            return False
        have = self.store.longest_reusable(prompt)
        return have < self.store.reusable_part(job.marks, wanted)

    def _generation(self, job: Job) -> Generation:
        return Generation(
            job,
            self._model,
            self.store,
            eos_token_ids=self._eos,
            chunk_tokens=self._chunk_tokens,
            decode_steps_per_turn=self._settings.decode_steps_per_turn,
        )

    def _chunk_tokens(self) -> int:
        """Smaller chunks while others decode, so that their answers keep flowing."""
        if any(generation.decoding for generation in self._running):
            return self._settings.shared_prefill_chunk_tokens
        return self._settings.prefill_chunk_tokens

    def _turn(self) -> None:
        """Gives the next running request one turn."""
        if not self._running:
            return
        generation = self._running[0]
        self._running.rotate(-1)
        self._advance(generation)

    def _advance(self, generation: Generation) -> None:
        try:
            goes_on = generation.turn()
        except DecodingError as error:
            log.exception("answer could not be decoded", request_id=generation.job.request_id)
            failure = ApiError(500, f"The answer could not be decoded: {error}")
            generation.job.emit(pb.GenerateResponse(failed=failure.to_failed()))
            goes_on = False
        if not goes_on:
            self._remove(generation)

    def _remove(self, generation: Generation) -> None:
        self._running.remove(generation)
        usage = generation.usage
        self.totals.reused += usage.cache_read_tokens
        self.totals.computed += usage.input_tokens + usage.cache_creation_tokens
        self.totals.generated += usage.output_tokens
        self.store.room.make(0)

    def _cancel(self, request_id: str) -> None:
        for job in [job for job in self._waiting if job.request_id == request_id]:
            self._waiting.remove(job)
        for generation in [g for g in self._running if g.job.request_id == request_id]:
            generation.cancel()
            self._remove(generation)

    def _fail_all(self, why: str) -> None:
        event = pb.GenerateResponse(failed=overloaded(why, RETRY_AFTER_SECONDS).to_failed())
        for job in [*(generation.job for generation in self._running), *self._waiting]:
            job.emit(event)
        self._running.clear()
        self._waiting.clear()
