"""Computes what the next question of a conversation will begin with, while nobody waits.

Where a template rewrites history, or a client clears thinking, the prompt of a next question
differs from what is cached long before the question. All of it but the question is known as soon as
the answer is complete. So after a pause without any request, the worker renders it and computes it.
A request that arrives ends this within one prefill chunk, and what was computed is kept.

Everything here runs on the loop of the side thread.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.jobs import Answering
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

Emit = Callable[[pb.GenerateResponse], None]
# Makes the job for an answered request; None if there is nothing to compute.
MakeJob = Callable[[Answering, Emit], Awaitable[Job | None]]

# After so many seconds it looks again whether computing is allowed, for example on mains power.
_RECHECK_SECONDS: Final = 60.0


class ComputingAhead:
    """The conversations whose next question may come, and the one that is computed ahead."""

    def __init__(
        self,
        engine: Engine,
        make_job: MakeJob,
        *,
        is_allowed: Callable[[], Awaitable[bool]],
        after_seconds: float,
        max_conversations: int,
    ) -> None:
        """It begins when no request has run for `after_seconds`, if `is_allowed`.

        `make_job` may take a tenth of a second. The conversations answered last are remembered.
        """
        self._engine = engine
        self._make_job = make_job
        self._is_allowed = is_allowed
        self._after_seconds = after_seconds
        self._max_conversations = max_conversations
        # The conversation answered last is the last.
        self._answered: dict[LineageKey, Answering] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_active(self) -> bool:
        """Whether it waits for its time, or computes."""
        return self._task is not None and not self._task.done()

    def answered(self, answering: Answering) -> None:
        """A request was answered completely, so that a question may follow."""
        self.asked(answering.job.lineage)
        self._answered[answering.job.lineage] = answering
        while len(self._answered) > self._max_conversations:
            del self._answered[next(iter(self._answered))]

    def asked(self, key: LineageKey) -> None:
        """The conversation has gone on."""
        self._answered.pop(key, None)

    def pause(self) -> None:
        """Somebody waits for the worker."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def resume(self) -> None:
        """Nobody waits any more."""
        if self._answered and not self.is_active:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause = self._after_seconds
        while self._answered:
            await asyncio.sleep(pause)
            pause = self._after_seconds
            if not await self._is_allowed():
                pause = max(_RECHECK_SECONDS, pause)
                continue
            key, answering = next(reversed(self._answered.items()))
            try:
                done = await self._compute(answering)
            except Exception:
                # No request depends on it.
                log.exception("what a next question begins with cannot be computed")
                done = True
            if done:
                self._answered.pop(key, None)

    async def _compute(self, answering: Answering) -> bool:
        """Computes ahead for one conversation; False if it was given up."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[pb.GenerateResponse] = loop.create_future()

        def note(event: pb.GenerateResponse) -> None:
            if not ended.done():
                ended.set_result(event)

        def emit(event: pb.GenerateResponse) -> None:
            if event.HasField("finished") or event.HasField("failed"):
                loop.call_soon_threadsafe(note, event)

        job = await self._make_job(answering, emit)
        if job is None:
            return True
        self._engine.submit(job)
        try:
            event = await ended
        finally:
            # Has no effect on a job that has ended.
            self._engine.cancel(job.request_id)
        return event.HasField("finished") or event.failed.HasField("should_retry")
