"""ModeService: which mode requests take."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
import grpc.aio
import structlog

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.runtime.upstreams import SwitchPolicy
from anyclaude.supervisor import modes
from anyclaude.supervisor.control.errors import ControlError, answers
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.modes import RELAY, Mode
from anyclaude.supervisor.speeds import RECENT, recent_needs
from anyclaude.supervisor.switch import Switcher, SwitchError

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_POLICIES: Final = {
    SwitchPolicy.START_FIRST: control_pb2.SWITCH_POLICY_START_FIRST,
    SwitchPolicy.STOP_FIRST: control_pb2.SWITCH_POLICY_STOP_FIRST,
}


class ModeService(control_pb2_grpc.ModeServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._target = ""
        self._switcher = Switcher(daemon)

    @answers
    async def GetMode(self, request: control_pb2.GetModeRequest) -> control_pb2.GetModeResponse:
        relay = self._daemon.workers.get(RELAY)
        if relay is not None:
            await relay.glance()
        return control_pb2.GetModeResponse(
            mode=self._daemon.mode.get().name,
            modes=[self._show(mode) for mode in self._daemon.modes.values()],
            recent_needs=recent_needs(self._daemon.journal.newest(RECENT)),
        )

    @answers
    async def SetMode(self, request: control_pb2.SetModeRequest) -> control_pb2.SetModeResponse:
        """Answers once the front end sends new requests to the new mode's worker."""
        mode, warning = self._find(request.mode)
        wait_seconds = request.ready_timeout.ToNanoseconds() / 1e9
        # A caller that gives up must not leave a change half done.
        change = asyncio.ensure_future(self._change(mode, wait_seconds))
        change.add_done_callback(_take_note)
        previous = await asyncio.shield(change)
        return control_pb2.SetModeResponse(
            mode=mode.name, previous_mode=previous.name, warning=warning
        )

    async def _change(self, mode: Mode, wait_seconds: float) -> Mode:
        with self._transition(mode):
            previous = self._daemon.mode.get()
            try:
                await self._switcher.to(mode, wait_seconds)
            except SwitchError as error:
                raise ControlError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "MODE_NOT_READY",
                    f"The mode stays {previous.name}: {mode.name} is not ready. {error}",
                    {"mode": mode.name},
                ) from None
            except OSError as error:
                raise ControlError(
                    grpc.StatusCode.UNAVAILABLE,
                    "MODE_NOT_KEPT",
                    f"The mode could not be written to disk and stays as it was: {error}.",
                ) from None
        return previous

    @contextmanager
    def _transition(self, mode: Mode) -> Iterator[None]:
        """One at a time: what two at once leave behind would be anybody's guess."""
        if self._target:
            raise ControlError(
                grpc.StatusCode.ABORTED,
                "MODE_CHANGING",
                f"The mode is being changed to {self._target} just now. Try again in a moment.",
                {"mode": self._target},
                retry_seconds=1.0,
            )
        self._target = mode.name
        try:
            yield
        finally:
            self._target = ""

    def _show(self, mode: Mode) -> control_pb2.Mode:
        reason = self._daemon.why_not(mode)
        model = self._daemon.model(mode)
        settings = self._daemon.loaded.settings
        return control_pb2.Mode(
            name=mode.name,
            description=mode.description,
            ready=not reason,
            reason=reason,
            model=model,
            is_remote=modes.leaves_machine(mode, self._daemon.modes, settings.auto.rules),
            keeps_caches=mode.worker == modes.CACHE_WORKER,
            switch_policy=_POLICIES[mode.policy],
            speed=self._daemon.speeds.of(mode.name, model.id if model else ""),
        )

    def _find(self, word: str) -> tuple[Mode, str]:
        try:
            return modes.resolve(self._daemon.modes, word)
        except modes.UnknownModeError as error:
            raise ControlError(
                grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_MODE", str(error), {"mode": word}
            ) from None


def _take_note(change: "asyncio.Future[Mode]") -> None:
    """Of an error that nobody waits for any more; whoever still waits gets it too."""
    if not change.cancelled() and (error := change.exception()) is not None:
        _log.info("mode not changed", why=str(error))
