"""Failed calls to a worker, as the errors that a client gets."""

from typing import Final

import grpc
import structlog

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.proxy.routes import retry_after_seconds
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.workers")

_DRAIN_RETRY_AFTER_SECONDS: Final = 2
# Codes that mean the worker is gone; any other means that it is broken.
_GONE: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


class WorkerGoneError(ApiError):
    """The worker ended before its response did, or does not run."""


class WorkerStopsError(WorkerGoneError):
    """The worker stops as planned before its response ended."""


def stops(failed: worker.Failed) -> WorkerStopsError:
    """The worker gives the request up, because it stops."""
    error = ApiError.from_failed(failed)
    return WorkerStopsError(
        error.status, error.message, retry_after_seconds=error.retry_after_seconds
    )


def restarting() -> ApiError:
    """This process ends before the response does."""
    return overloaded("anyclaude is restarting.", _DRAIN_RETRY_AFTER_SECONDS)


def gone(route: frontend.Route, why: str) -> WorkerGoneError:
    """The worker ended before its response did, or does not run."""
    log.warning("worker gone", mode=route.mode, generation=route.generation, why=why)
    return WorkerGoneError(
        529,
        "The model worker went away; it is being started again.",
        retry_after_seconds=retry_after_seconds(route),
    )


def too_large() -> ApiError:
    return ApiError(413, "The request is too large for the model worker.")


def lost(error: grpc.aio.AioRpcError, route: frontend.Route) -> ApiError:
    """A gRPC call to the worker failed."""
    code = error.code()
    if code in _GONE:
        return gone(route, f"{code.name}: {error.details()}")
    log.warning(
        "worker call failed",
        mode=route.mode,
        generation=route.generation,
        # The error's details are left out: the worker's code wrote them, and they may quote a
        # prompt.
        code=code.name,
    )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return too_large()
    return ApiError(500, f"The model worker failed ({code.name}). `anyclaudectl logs` says more.")
