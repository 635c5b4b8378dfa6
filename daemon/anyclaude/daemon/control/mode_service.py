"""ModeService: which mode requests take."""

import grpc

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.daemon import modes
from anyclaude.daemon.control.errors import ControlError, answers
from anyclaude.daemon.daemon import Daemon
from anyclaude.daemon.modes import MODES, Mode
from anyclaude.daemon.routes import why_not_ready
from anyclaude.daemon.supervisor import State


class ModeService(control_pb2_grpc.ModeServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @answers
    async def GetMode(self, request: control_pb2.GetModeRequest) -> control_pb2.GetModeResponse:
        return control_pb2.GetModeResponse(
            mode=self._daemon.mode.get().name, modes=[self._show(mode) for mode in MODES.values()]
        )

    @answers
    async def SetMode(self, request: control_pb2.SetModeRequest) -> control_pb2.SetModeResponse:
        mode, warning = _find(request.mode)
        previous = self._daemon.mode.get()
        reason = self._why_not_ready(mode)
        if reason:
            raise ControlError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "MODE_NOT_READY",
                f"The mode stays {previous.name}: {mode.name} is not ready. {reason}",
                {"mode": mode.name},
            )
        self._set(mode)
        return control_pb2.SetModeResponse(
            mode=mode.name, previous_mode=previous.name, warning=warning
        )

    def _set(self, mode: Mode) -> None:
        try:
            self._daemon.mode.set(mode)
        except OSError as error:
            raise ControlError(
                grpc.StatusCode.UNAVAILABLE,
                "MODE_NOT_KEPT",
                f"The mode could not be written to disk and stays as it was: {error}.",
            ) from None

    def _show(self, mode: Mode) -> control_pb2.Mode:
        reason = self._why_not_ready(mode)
        return control_pb2.Mode(
            name=mode.name, description=mode.description, ready=not reason, reason=reason
        )

    def _why_not_ready(self, mode: Mode) -> str:
        """Empty when requests in `mode` would be answered."""
        if mode.missing:
            return f"This mode cannot be used: {mode.missing}."
        worker = self._daemon.workers.get(mode.worker)
        if worker is None:
            return f"This daemon runs no {mode.worker} worker."
        if worker.child.state is State.READY:
            return ""
        return why_not_ready(worker.child, self._daemon.clock())


def _find(word: str) -> tuple[Mode, str]:
    try:
        return modes.resolve(word)
    except modes.UnknownModeError as error:
        raise ControlError(
            grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_MODE", str(error), {"mode": word}
        ) from None
