"""Jobs that compute ahead: whether one is worth it and fits, and how it ends without success.

Such a job is a prompt without an answer (`Job.ahead`). It never makes a request wait longer than
one prefill chunk, and never evicts what was used after the answer that it follows.
"""

from typing import Final

from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.kv.store import KVStore
from anyclaude.worker.v1 import worker_pb2 as pb

# Computing fewer tokens ahead saves nothing that anybody would notice.
_LEAST_TOKENS: Final = 64
_RETRY_AFTER_SECONDS: Final = 1


def why_not(job: Job, store: KVStore) -> str:
    """Why a job is not run; empty if it is. Then the budget has the bytes that it needs."""
    if not store.has_lineage(job.lineage):
        return "The conversation was removed."
    if len(job.token_ids) - store.longest_reusable(job.token_ids) <= _LEAST_TOKENS:
        return "It is computed already."
    if not store.budget.fit_ahead(job.lineage, job.token_ids):
        return "It does not fit into the budget of the caches."
    return ""


def given_up(why: str) -> pb.GenerateResponse:
    """The end of a job that may be run again later."""
    return pb.GenerateResponse(failed=overloaded(why, _RETRY_AFTER_SECONDS).to_failed())


def not_done(why: str) -> pb.GenerateResponse:
    """The end of a job that is not to be run again."""
    return pb.GenerateResponse(failed=ApiError(503, why, should_retry=False).to_failed())
