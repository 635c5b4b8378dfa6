"""The cache verbs on the control socket: each call goes to the worker that keeps the caches.

Requests and responses pass as bytes, and the worker's own errors pass unchanged, so a new verb
needs no change here. Only the errors of a worker that cannot respond are added here.
"""

from typing import Any, Final

import grpc
import grpc.aio

from anyclaude.cache.v1 import cache_pb2
from anyclaude.runtime.call_errors import CallError, abort, abort_alike, is_explained
from anyclaude.supervisor.child import NotReadyError
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.modes import CACHE_WORKER
from anyclaude.supervisor.routes import seconds_to_ready, why_not_ready
from anyclaude.supervisor.worker_client import WorkerClient

SERVICE_NAME: Final = cache_pb2.DESCRIPTOR.services_by_name["CacheService"].full_name
# The part of the caller's time that is left for the error that the worker was too slow.
_REPLY_SECONDS: Final = 1.0
# The process ended during the call, or was just being replaced.
_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})


class CacheForwarder(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handles every method of CacheService. All of them are unary."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        if not call.method.startswith(f"/{SERVICE_NAME}/"):
            return None

        async def forward(request: bytes, context: Any) -> bytes:
            return await self._forward(call.method, request, context)

        return grpc.unary_unary_rpc_method_handler(forward)

    async def _forward(self, method: str, request: bytes, context: Any) -> bytes:
        seconds = _worker_seconds(context.time_remaining())
        try:
            worker = self._worker()
            channel = await worker.child.channel()
            # Without serializers both messages stay bytes. A cancelled caller cancels this call.
            response: bytes = await channel.unary_unary(method)(request, timeout=seconds)
            return response
        except CallError as error:
            await abort(context, error)
        except NotReadyError:
            await abort(context, self._down(worker))
        except grpc.aio.AioRpcError as error:
            if is_explained(error) or error.code() is grpc.StatusCode.UNIMPLEMENTED:
                await abort_alike(context, error)
            await abort(context, self._failed(worker, error))

    def _worker(self) -> WorkerClient:
        worker = self._daemon.workers.get(CACHE_WORKER)
        if worker is None:
            raise CallError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NO_CACHE_WORKER",
                f"This daemon runs no {CACHE_WORKER} worker, so it keeps no caches.",
            )
        return worker

    def _down(self, worker: WorkerClient) -> CallError:
        child, now = worker.child, self._daemon.clock()
        return CallError(
            grpc.StatusCode.UNAVAILABLE,
            "WORKER_DOWN",
            why_not_ready(child, now),
            {"worker": child.name},
            retry_seconds=seconds_to_ready(child, now),
        )

    def _failed(self, worker: WorkerClient, error: grpc.aio.AioRpcError) -> CallError:
        name = worker.child.name
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"The {name} worker did not answer in time. Try again."
            return CallError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "WORKER_BUSY", message, {"worker": name}
            )
        if error.code() in _GONE:
            message = f"The {name} worker went away; it is being started again."
            return CallError(
                grpc.StatusCode.UNAVAILABLE, "WORKER_DOWN", message, {"worker": name}, 1.0
            )
        # The worker's own code failed: neither another request nor waiting helps.
        message = f"The {name} worker failed: {error.details()}. `anyclaudectl logs` says more."
        return CallError(grpc.StatusCode.INTERNAL, "WORKER_FAILED", message, {"worker": name})


def _worker_seconds(remaining: float | None) -> float | None:
    """The worker's share of the caller's time; None when the caller waits for ever."""
    return None if remaining is None else max(remaining - _REPLY_SECONDS, remaining / 2)
