"""What the daemon knows of a worker: its latest status, and the channel to it."""

from typing import Any, Final

import grpc
import grpc.aio
import structlog

from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import NotReadyError, SupervisedChild
from anyclaude.supervisor.modes import AUTO_MODE, OWN_MODE
from anyclaude.worker.v1 import worker_pb2, worker_pb2_grpc

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# `status` waits no longer than this for a worker.
GLANCE_SECONDS: Final = 1.0
# Long enough for a busy worker, short enough for a caller who waits.
STATUS_SECONDS: Final = 4.0
_RETRY_SECONDS: Final = 0.2


class WorkerClient:
    """One worker, through whichever process runs it now.

    Calls raise `NotReadyError` when no process serves, and grpc.aio.AioRpcError when it fails.
    """

    def __init__(self, child: SupervisedChild, changes: Changes) -> None:
        self.child = child
        self._changes = changes
        # With its generation: the status of an earlier process is worth nothing.
        self._last: tuple[int, worker_pb2.GetStatusResponse] | None = None

    def model(self, mode: str) -> worker_pb2.ModelInfo | None:
        """What the current process answers `mode` with; None until it reports one."""
        last = self._last_status()
        if last is None:
            return None
        upstream = self.upstream(mode)
        return upstream.model if upstream else last.model

    def upstream(self, mode: str) -> worker_pb2.UpstreamStatus | None:
        """The last known status of the server behind a relayed mode."""
        last = self._last_status()
        name = OWN_MODE if mode == AUTO_MODE else mode
        found = (known for known in last.upstreams if known.name == name) if last else ()
        return next(iter(found), None)

    def _last_status(self) -> worker_pb2.GetStatusResponse | None:
        if self._last and self._last[0] == self.child.supervisor.generation:
            return self._last[1]
        return None

    async def follow(self) -> None:
        """Reads the model of every new process; runs until cancelled."""
        await self._changes.follow(self._learn_model, _RETRY_SECONDS)

    async def _learn_model(self) -> bool:
        """Returns False if it has to be tried again."""
        if self._last_status() is not None:
            return True
        try:
            await self.status(STATUS_SECONDS)
        except NotReadyError:
            return True
        except grpc.aio.AioRpcError as error:
            _log.warning("worker gives no status", worker=self.child.name, why=error.details())
            return False
        return True

    async def status(
        self, timeout_seconds: float, check_mode: str = ""
    ) -> worker_pb2.GetStatusResponse:
        """The status now; the server behind `check_mode` is checked first."""
        generation = self.child.supervisor.generation
        stub: Any = worker_pb2_grpc.WorkerServiceStub(await self.child.channel())  # type: ignore[no-untyped-call]
        status: worker_pb2.GetStatusResponse = await stub.GetStatus(
            worker_pb2.GetStatusRequest(check_mode=check_mode), timeout=timeout_seconds
        )
        before, self._last = self._last, (generation, status)
        if before is None or before[0] != generation or _news(before[1]) != _news(status):
            self._changes.notify()
        return status

    async def forget_learned(self, mode: str) -> list[str]:
        """Makes the relay forget what the server of `mode` was seen to refuse; returns that."""
        stub: Any = worker_pb2_grpc.WorkerServiceStub(await self.child.channel())  # type: ignore[no-untyped-call]
        forgotten: worker_pb2.ForgetLearnedResponse = await stub.ForgetLearned(
            worker_pb2.ForgetLearnedRequest(mode=mode), timeout=STATUS_SECONDS
        )
        return list(forgotten.learned)

    async def glance(self) -> worker_pb2.GetStatusResponse | None:
        """The status now; the last one known while the worker is busy; None while it is down."""
        try:
            return await self.status(GLANCE_SECONDS)
        except NotReadyError:
            return None
        except grpc.aio.AioRpcError as error:
            _log.debug("worker slow to answer", worker=self.child.name, why=error.details())
            return self._last_status()


def _news(status: worker_pb2.GetStatusResponse) -> list[tuple[str, int, worker_pb2.ModelInfo]]:
    """The parts of a status that readiness and routes depend on."""
    return [(known.name, known.reachability, known.model) for known in status.upstreams]
