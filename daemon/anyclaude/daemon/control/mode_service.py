"""ModeService: which mode requests take."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
import grpc.aio

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.daemon import modes
from anyclaude.daemon.control.errors import ControlError, answers
from anyclaude.daemon.daemon import Daemon
from anyclaude.daemon.links import NotReadyError
from anyclaude.daemon.measured import RECENT, recent_needs, speed
from anyclaude.daemon.modes import RELAY, Mode
from anyclaude.daemon.upstreams import CHECK_SECONDS, why_not

# For the front end to take the new routes; one that is away gets them before its first request.
_TAKEN_SECONDS: Final = 5.0


class ModeService(control_pb2_grpc.ModeServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._target = ""

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
        with self._transition(mode):
            previous = self._daemon.mode.get()
            if reason := await self._ask_why_not(mode):
                raise ControlError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "MODE_NOT_READY",
                    f"The mode stays {previous.name}: {mode.name} is not ready. {reason}",
                    {"mode": mode.name},
                )
            self._set(mode)
            await self._taken(mode)
        return control_pb2.SetModeResponse(
            mode=mode.name, previous_mode=previous.name, warning=warning
        )

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

    async def _ask_why_not(self, mode: Mode) -> str:
        """As `why_not`, with news from the mode's server."""
        if not mode.is_relayed or mode.worker not in self._daemon.workers:
            return why_not(self._daemon, mode)
        try:
            await self._daemon.workers[mode.worker].status(CHECK_SECONDS, check_mode=mode.name)
        except NotReadyError:
            return why_not(self._daemon, mode)
        except grpc.aio.AioRpcError as error:
            return f"The {mode.worker} worker gave no answer ({error.code().name}). Try again."
        return why_not(self._daemon, mode)

    async def _taken(self, mode: Mode) -> None:
        changes, serves = self._daemon.changes, self._daemon.routes.serves
        try:
            async with asyncio.timeout(_TAKEN_SECONDS):
                version = changes.version
                while not serves(mode):
                    version = await changes.after(version)
        except TimeoutError:
            # The choice is kept and pushed as soon as there is a front end; status says more.
            return

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
        reason = why_not(self._daemon, mode)
        worker = self._daemon.workers.get(mode.worker)
        settings = self._daemon.loaded.settings
        return control_pb2.Mode(
            name=mode.name,
            description=mode.description,
            ready=not reason,
            reason=reason,
            model=worker.model(mode.name) if worker else None,
            is_remote=modes.leaves_machine(mode, self._daemon.modes, settings.auto.rules),
            keeps_caches=mode.worker == modes.CACHE_WORKER,
            speed=speed(self._daemon.journal.newest(settings.log.max_records), mode.name),
        )

    def _find(self, word: str) -> tuple[Mode, str]:
        try:
            return modes.resolve(self._daemon.modes, word)
        except modes.UnknownModeError as error:
            raise ControlError(
                grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_MODE", str(error), {"mode": word}
            ) from None
