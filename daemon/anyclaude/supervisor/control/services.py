"""The services of the control API that the daemon answers from its own state."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.runtime.call_errors import CallError, rpc_method
from anyclaude.supervisor import modes, reload
from anyclaude.supervisor.child import NotReadyError, StoppingError, UnknownChildError
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.metrics import Scrape
from anyclaude.supervisor.modes import CACHE_WORKER, RELAY, Mode
from anyclaude.supervisor.records import running
from anyclaude.supervisor.speeds import RECENT, recent_needs
from anyclaude.supervisor.status import status, worker, workers
from anyclaude.supervisor.switch import Switcher, SwitchError

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

DEFAULT_PAGE_SIZE: Final = 100


class _Service:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon


class DaemonService(_Service, control_pb2_grpc.DaemonServiceServicer):
    @rpc_method
    async def GetStatus(
        self, request: control_pb2.GetStatusRequest
    ) -> control_pb2.GetStatusResponse:
        return control_pb2.GetStatusResponse(status=await status(self._daemon))

    async def WatchStatus(
        self, request: control_pb2.WatchStatusRequest, context: Any
    ) -> AsyncIterator[control_pb2.WatchStatusResponse]:
        """Sends the latest status after each change; a slow reader misses the ones between."""
        version = self._daemon.changes.version
        while not self._daemon.changes.closed:
            yield control_pb2.WatchStatusResponse(status=await status(self._daemon))
            version = await self._daemon.changes.after(version)

    @rpc_method
    async def GetConfig(
        self, request: control_pb2.GetConfigRequest
    ) -> control_pb2.GetConfigResponse:
        loaded = self._daemon.configuration.loaded
        return control_pb2.GetConfigResponse(
            file=str(loaded.file),
            entries=[
                control_pb2.ConfigEntry(key=key, value_json=json.dumps(value), origin=origin)
                for key, value, origin in loaded.entries()
            ],
        )

    @rpc_method
    async def ReloadConfig(
        self, request: control_pb2.ReloadConfigRequest
    ) -> control_pb2.ReloadConfigResponse:
        try:
            done = reload.apply(self._daemon, trial=request.validate_only)
        except reload.ReloadError as error:
            raise CallError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "SETTINGS_NOT_USED",
                f"Nothing was changed. {error}",
            ) from None
        return control_pb2.ReloadConfigResponse(
            changed_keys=done.changed,
            restarted_workers=done.restarted,
            pending_keys=done.pending,
        )

    @rpc_method
    async def Shutdown(self, request: control_pb2.ShutdownRequest) -> control_pb2.ShutdownResponse:
        self._daemon.stop()
        return control_pb2.ShutdownResponse()


class ModeService(_Service, control_pb2_grpc.ModeServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon)
        self._target = ""
        self._switcher = Switcher(daemon)

    @rpc_method
    async def GetMode(self, request: control_pb2.GetModeRequest) -> control_pb2.GetModeResponse:
        relay = self._daemon.workers.get(RELAY)
        if relay is not None:
            await relay.glance()
        return control_pb2.GetModeResponse(
            mode=self._daemon.mode.get().name,
            modes=[self._show(mode) for mode in self._daemon.modes.values()],
            recent_needs=recent_needs(self._daemon.journal.newest(RECENT)),
        )

    @rpc_method
    async def SetMode(self, request: control_pb2.SetModeRequest) -> control_pb2.SetModeResponse:
        """Answers once the front end sends new requests to the new mode's worker."""
        mode, warning = self._find(request.mode)
        wait_seconds = request.ready_timeout.ToNanoseconds() / 1e9
        # A caller that gives up must not leave a change half done.
        change = asyncio.ensure_future(self._change(mode, wait_seconds))
        change.add_done_callback(_log_failure)
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
                raise CallError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "MODE_NOT_READY",
                    f"The mode stays {previous.name}: {mode.name} is not ready. {error}",
                    {"mode": mode.name},
                ) from None
            except OSError as error:
                raise CallError(
                    grpc.StatusCode.UNAVAILABLE,
                    "MODE_NOT_KEPT",
                    f"The mode could not be written to disk and stays as it was: {error}.",
                ) from None
        return previous

    @contextmanager
    def _transition(self, mode: Mode) -> Iterator[None]:
        """Refuses a second change while one is under way: the result of two would be undefined."""
        if self._target:
            raise CallError(
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
        settings = self._daemon.configuration.settings
        return control_pb2.Mode(
            name=mode.name,
            description=mode.description,
            ready=not reason,
            reason=reason,
            model=model,
            is_remote=modes.leaves_machine(mode, self._daemon.modes, settings),
            keeps_caches=mode.worker == CACHE_WORKER,
            switch_policy=f"SWITCH_POLICY_{mode.policy.name}",
            speed=self._daemon.speeds.of(mode.name, model.id if model else ""),
        )

    def _find(self, word: str) -> tuple[Mode, str]:
        try:
            return modes.resolve(self._daemon.modes, word)
        except modes.UnknownModeError as error:
            raise CallError(
                grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_MODE", str(error), {"mode": word}
            ) from None


def _log_failure(change: "asyncio.Future[Mode]") -> None:
    """Retrieves the error, so that asyncio does not warn when the caller has gone."""
    if not change.cancelled() and (error := change.exception()) is not None:
        _log.info("mode not changed", why=str(error))


class WorkerControlService(_Service, control_pb2_grpc.WorkerControlServiceServicer):
    @rpc_method
    async def ListWorkers(
        self, request: control_pb2.ListWorkersRequest
    ) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(workers=workers(self._daemon))

    @rpc_method
    async def RestartWorker(
        self, request: control_pb2.RestartWorkerRequest
    ) -> control_pb2.RestartWorkerResponse:
        try:
            pause = self._daemon.children[request.name].pause
            if pause is not None and not pause.is_complete:
                raise CallError(
                    grpc.StatusCode.ABORTED,
                    "MODE_CHANGING",
                    f"The {request.name} worker is being stopped for mode {pause.mode} just now. "
                    "Try again in a moment.",
                    {"worker": request.name},
                    retry_seconds=1.0,
                )
            child = self._daemon.children.restart(request.name)
        except UnknownChildError as error:
            raise CallError(
                grpc.StatusCode.NOT_FOUND, "UNKNOWN_WORKER", str(error), {"worker": request.name}
            ) from None
        except StoppingError as error:
            raise CallError(grpc.StatusCode.UNAVAILABLE, "STOPPING", str(error)) from None
        return control_pb2.RestartWorkerResponse(worker=worker(child, self._daemon.clock))

    @rpc_method
    async def ForgetLearned(
        self, request: control_pb2.ForgetLearnedRequest
    ) -> control_pb2.ForgetLearnedResponse:
        relay = self._daemon.workers.get(RELAY)
        mode = self._daemon.modes.get(request.mode)
        if relay is None or mode is None or not mode.is_relayed:
            known = [name for name, each in self._daemon.modes.items() if each.is_relayed]
            raise CallError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "UNKNOWN_MODE",
                f"No server answers in mode {request.mode}. Modes with one: {', '.join(known)}.",
                {"mode": request.mode},
            )
        try:
            learned = await relay.forget_learned(mode.name)
        except (NotReadyError, grpc.aio.AioRpcError) as error:
            raise CallError(grpc.StatusCode.UNAVAILABLE, "NOT_READY", str(error)) from None
        return control_pb2.ForgetLearnedResponse(learned=learned)


class MetricsService(_Service, control_pb2_grpc.MetricsServiceServicer):
    @rpc_method
    async def GetMetrics(
        self, request: control_pb2.GetMetricsRequest
    ) -> control_pb2.GetMetricsResponse:
        mode = self._daemon.mode.get()
        worker = self._daemon.workers.get(CACHE_WORKER)
        seen = await worker.glance() if worker else None
        ready = self._daemon.routes.serves(mode)
        return self._daemon.metrics.read(Scrape(mode.name, ready, seen))

    @rpc_method
    async def ListRequests(
        self, request: control_pb2.ListRequestsRequest
    ) -> control_pb2.ListRequestsResponse:
        count = request.page_size or DEFAULT_PAGE_SIZE
        return control_pb2.ListRequestsResponse(
            records=self._daemon.journal.newest(count, request.session_id, request.launch_id),
            running=await running(self._daemon.children.frontend),
        )
