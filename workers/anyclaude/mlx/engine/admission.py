"""Requests that wait to start, and which of them may: by class, by prefix and by memory."""

from collections.abc import Collection

import structlog

import mlx.core as mx
from anyclaude.mlx.engine.chunks import ChunkSizes
from anyclaude.mlx.engine.generation import Generation
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.memory import Preflight
from anyclaude.mlx.tokens import common_prefix
from anyclaude.runtime.settings import MlxSettings
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)


class Admission:
    """The queue before the engine. Used on the MLX thread only."""

    def __init__(
        self,
        store: KVStore,
        settings: MlxSettings,
        chunks: ChunkSizes,
        preflight: Preflight | None = None,
    ) -> None:
        self._store = store
        self._chunks = chunks
        self._preflight = preflight
        self._class_delay_seconds = settings.class_delay_seconds
        self._waiting: list[Job] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def refused(self) -> int:
        """How many requests were refused for want of memory."""
        return self._preflight.refused if self._preflight else 0

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    def remove(self, request_id: str) -> None:
        self._waiting = [job for job in self._waiting if job.request_id != request_id]

    def take_all(self) -> list[Job]:
        jobs, self._waiting = self._waiting, []
        return jobs

    def next(self, running: Collection[Generation]) -> Job | None:
        """Takes out the job that starts next; None while no job can start beside `running`.

        Main conversations come first, then subagents, then utility calls. Each class counts as if
        it had come some seconds later than the one before, so none waits for ever. A job whose
        prefix is being computed is passed over.
        """
        for job in sorted(self._waiting, key=self._place):
            if self._is_being_computed(job, running):
                continue
            fits = self._store.budget.fit_request(job.lineage, job.token_ids, keep=job.keep)
            # A request that runs alone is admitted whatever it needs: waiting would not help it.
            if not fits and running:
                return None
            missing = self._missing_after_eviction(job)
            if missing and running:
                return None
            self._waiting.remove(job)
            if not missing:
                return job
            self._refuse(job)
        return None

    def missing_bytes(self, job: Job) -> int:
        """Bytes that the machine lacks for the job."""
        return self._preflight.missing_bytes(self._needed_bytes(job)) if self._preflight else 0

    def _place(self, job: Job) -> float:
        return job.created + self._class_delay_seconds * _class_rank(job)

    def _is_being_computed(self, job: Job, running: Collection[Generation]) -> bool:
        """Whether a running request is prefilling tokens that the job could soon reuse.

        This happens when a retry's first try still runs, or when subagents start together. The
        later request waits for the shared part instead of computing it again.
        """
        prompt = job.token_ids
        prefilling = [generation.job for generation in running if not generation.decoding]
        wanted = max((common_prefix(other.token_ids, prompt) for other in prefilling), default=0)
        if wanted < self._chunks.unmeasured_tokens:
            return False
        have = self._store.longest_reusable(prompt)
        return have < self._store.reusable_part(job.marks, wanted)

    def _missing_after_eviction(self, job: Job) -> int:
        """Bytes that the machine lacks for the job after idle caches were evicted for it.

        Nothing is evicted where all idle caches together would not be enough.
        """
        budget = self._store.budget
        while missing := self.missing_bytes(job):
            before = budget.nbytes
            if missing > budget.idle_bytes:
                return missing
            budget.free(missing)
            mx.clear_cache()
            if budget.nbytes == before:
                return missing
        return 0

    def _needed_bytes(self, job: Job) -> int:
        needed = self._store.budget.needed_bytes(job.lineage, job.token_ids, keep=job.keep)
        return needed + self._chunks.scores_bytes(len(job.token_ids))

    def _refuse(self, job: Job) -> None:
        assert self._preflight is not None
        error = self._preflight.refusal(self._needed_bytes(job))
        log.warning("request does not fit into memory", request_id=job.request_id)
        job.emit(pb.GenerateResponse(failed=error.to_failed()))


def _class_rank(job: Job) -> int:
    """0 for a main conversation, 1 for a subagent, 2 for a utility call."""
    if not job.keep:
        return 2
    return int(bool(job.lineage.agent_id))
