"""WorkerControlService: the children, and starting one again."""

import grpc

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.supervisor.control.errors import ControlError, answers
from anyclaude.supervisor.crew import StoppingError, UnknownChildError
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
            room = self._daemon.crew[request.name].room
            if room is not None and not room.is_made:
                raise ControlError(
                    grpc.StatusCode.ABORTED,
                    "MODE_CHANGING",
                    f"The {request.name} worker is being stopped for mode {room.mode} just now. "
                    "Try again in a moment.",
                    {"worker": request.name},
                    retry_seconds=1.0,
                )
            child = self._daemon.crew.restart(request.name)
        except UnknownChildError as error:
            raise ControlError(
                grpc.StatusCode.NOT_FOUND, "UNKNOWN_WORKER", str(error), {"worker": request.name}
            ) from None
        except StoppingError as error:
            raise ControlError(grpc.StatusCode.UNAVAILABLE, "STOPPING", str(error)) from None
        return control_pb2.RestartWorkerResponse(worker=worker(child, self._daemon.clock))
