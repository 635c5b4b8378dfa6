"""WorkerControlService: the children, and starting one again."""

import grpc

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.supervisor.child import StoppingError, UnknownChildError
from anyclaude.supervisor.control.errors import ControlError, answers
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.status import worker, workers


class WorkerControlService(control_pb2_grpc.WorkerControlServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @answers
    async def ListWorkers(
        self, request: control_pb2.ListWorkersRequest
    ) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(workers=workers(self._daemon))

    @answers
    async def RestartWorker(
        self, request: control_pb2.RestartWorkerRequest
    ) -> control_pb2.RestartWorkerResponse:
        try:
            pause = self._daemon.children[request.name].pause
            if pause is not None and not pause.is_complete:
                raise ControlError(
                    grpc.StatusCode.ABORTED,
                    "MODE_CHANGING",
                    f"The {request.name} worker is being stopped for mode {pause.mode} just now. "
                    "Try again in a moment.",
                    {"worker": request.name},
                    retry_seconds=1.0,
                )
            child = self._daemon.children.restart(request.name)
        except UnknownChildError as error:
            raise ControlError(
                grpc.StatusCode.NOT_FOUND, "UNKNOWN_WORKER", str(error), {"worker": request.name}
            ) from None
        except StoppingError as error:
            raise ControlError(grpc.StatusCode.UNAVAILABLE, "STOPPING", str(error)) from None
        return control_pb2.RestartWorkerResponse(worker=worker(child, self._daemon.clock))
