"""A change of mode. The policy of the new mode decides the steps.

- start-first: check that the new mode's server answers, then send requests there. Our own worker
  keeps running.
- stop-first: our own worker accepts no more requests, finishes those that run and writes its caches
  to disk, then exits; then the new mode's server is checked. The worker stays stopped as long as
  the mode is current, so that the server has its memory.
- A server with a `command` is started before it is checked, and stopped once another mode is
  current or if the change fails.
- From a stop-first mode to another mode, our worker starts again: before the change if it answers
  the new mode, else at the same time.

Promises: if the new mode cannot become ready, the old mode and our worker stay as they were and the
caller gets the reason; running requests finish on the worker that they started on; requests that
arrive during the change wait, or get 529 with `retry-after`.
"""

import asyncio
import contextlib
from typing import Final

import grpc.aio
import structlog

from anyclaude.runtime.upstreams import SwitchPolicy
from anyclaude.supervisor.child import NotReadyError, Pause, StoppingError, SupervisedChild
from anyclaude.supervisor.children import Role
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.modes import CACHE_WORKER, Mode
from anyclaude.supervisor.routes import why_not_ready
from anyclaude.supervisor.supervisor import State
from anyclaude.supervisor.worker_client import STATUS_SECONDS
from anyclaude.worker.v1 import worker_pb2

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# How long the front end may take to accept new routes. One that is restarting gets them before its
# first request.
_ACCEPT_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1
# How long a request that was routed just before the change may take to reach the worker.
_IDLE_POLLS: Final = 3
# Time between two checks of a server that is starting.
_RECHECK_SECONDS: Final = 0.5
# Time for one check: a connection and two requests, each with its own limit in the relay.
_CHECK_SECONDS: Final = 30.0
_GONE: Final = frozenset({State.STOPPED, State.STOPPING})


class SwitchError(Exception):
    """The mode did not change; the message says why and what to do."""


def pause_worker_at_start(daemon: Daemon) -> None:
    """Keeps our own worker from starting if the daemon starts in a stop-first mode."""
    mode = daemon.mode.get()
    worker = daemon.workers.get(CACHE_WORKER)
    if mode.policy is SwitchPolicy.STOP_FIRST and worker is not None:
        worker.child.set_pause(Pause(mode.name, is_complete=True))


class Switcher:
    """Changes the mode; one call at a time."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def to(self, mode: Mode, ready_seconds: float = 0.0) -> None:
        """Returns once new requests go to `mode`.

        Args:
            mode: the new one.
            ready_seconds: how long to wait for a stop-first mode's server, if more than the
                mode's setting.

        Raises:
            SwitchError: the old mode stays.
            OSError: the mode could not be saved; the old mode stays.
        """
        try:
            await self._change(mode, ready_seconds)
        finally:
            await self._stop_other_servers()

    async def _change(self, mode: Mode, ready_seconds: float) -> None:
        own = self._own()
        if mode.policy is SwitchPolicy.STOP_FIRST and own is not None:
            await self._stop_first(mode, own, max(ready_seconds, mode.ready_seconds))
        elif own is not None and own.pause is not None and mode.worker == CACHE_WORKER:
            await self._start_own(mode, own)
        else:
            await self._start_first(mode, own)
        await self._wait_for_routes(mode)

    async def _stop_other_servers(self) -> None:
        current = self._daemon.mode.get().name
        for child in self._daemon.children:
            is_other = child.spec.role is Role.SERVER and child.name != current
            if is_other and child.state is not State.STOPPED:
                await child.stop()

    async def _start_server(self, mode: Mode) -> None:
        """Starts the mode's server, if the service runs it, and waits until it is ready.

        Raises:
            SwitchError: it cannot be started.
        """
        server = self._daemon.children.server(mode.name)
        if server is None or server.state is State.READY:
            return
        self._start_again(server)

        def has_started() -> bool:
            if server.state in (State.FATAL, State.BACKOFF, *_GONE):
                raise SwitchError(_why_it_ended(server))
            return server.state is State.READY

        try:
            await self._daemon.changes.until(
                has_started, self._daemon.configuration.settings.supervisor.start_timeout_seconds
            )
        except TimeoutError:
            raise SwitchError(why_not_ready(server, self._daemon.clock())) from None

    def _own(self) -> SupervisedChild | None:
        worker = self._daemon.workers.get(CACHE_WORKER)
        return worker.child if worker else None

    async def _start_first(self, mode: Mode, own: SupervisedChild | None) -> None:
        await self._start_server(mode)
        if reason := await self._check(mode):
            raise SwitchError(reason)
        self._daemon.mode.set(mode)
        if own is not None and own.pause is not None:
            self._start_again(own)

    async def _stop_first(self, mode: Mode, own: SupervisedChild, ready_seconds: float) -> None:
        if mode.missing:
            raise SwitchError(self._daemon.why_not(mode))
        before = own.pause
        if before is None:
            own.set_pause(Pause(mode.name))
        try:
            if before is None:
                await self._finish_work(own)
                await own.stop()
            await self._start_server(mode)
            await self._wait_for_server(mode, ready_seconds)
            self._daemon.mode.set(mode)
        except BaseException:
            self._undo(own, before)
            raise
        own.set_pause(Pause(mode.name, is_complete=True))

    def _undo(self, own: SupervisedChild, before: Pause | None) -> None:
        if before is not None:
            own.set_pause(before)
        elif own.state in _GONE:
            self._start_again(own)
        else:
            own.set_pause(None)

    def _start_again(self, own: SupervisedChild) -> None:
        try:
            self._daemon.children.restart(own.name)
        except StoppingError:
            # The next run of the daemon starts in the saved mode.
            _log.info("not started again because the daemon stops", worker=own.name)

    async def _finish_work(self, own: SupervisedChild) -> None:
        """Waits until the worker has no request and nothing to write.

        Raises:
            SwitchError: it was not done in time.
        """
        seconds = self._daemon.configuration.settings.supervisor.make_room_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._wait_until_closed()
                idle = 0
                while idle < _IDLE_POLLS:
                    busy = await self._is_busy()
                    idle = 0 if busy else idle + 1
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise SwitchError(
                f"The {own.name} worker still runs requests or writes after {seconds:g} s. "
                "Try again later, or set supervisor.make_room_timeout_seconds higher."
            ) from None

    async def _wait_until_closed(self) -> None:
        """Waits until the front end sends the worker no new requests."""
        with contextlib.suppress(TimeoutError):
            await self._daemon.changes.until(
                lambda: self._daemon.routes.is_current, _ACCEPT_SECONDS
            )

    async def _is_busy(self) -> bool:
        try:
            status = await self._daemon.workers[CACHE_WORKER].status(STATUS_SECONDS)
        except NotReadyError:
            return False
        except grpc.aio.AioRpcError as error:
            _log.debug("worker slow to answer", why=error.details())
            return True
        disk = status.disk
        writes = disk.state == worker_pb2.DISK_STATE_SERVING and disk.pending_writes > 0
        return status.running_requests > 0 or status.queued_requests > 0 or writes

    async def _wait_for_server(self, mode: Mode, seconds: float) -> None:
        """Waits until the mode's server answers.

        Raises:
            SwitchError: it did not answer within `seconds`.
        """
        deadline = self._daemon.clock() + seconds
        while reason := await self._check(mode):
            if self._daemon.clock() >= deadline:
                raise SwitchError(reason)
            await asyncio.sleep(_RECHECK_SECONDS)

    async def _check(self, mode: Mode) -> str:
        """As `Daemon.why_not`, after a new check of the mode's server."""
        if not mode.is_relayed or mode.worker not in self._daemon.workers:
            return self._daemon.why_not(mode)
        try:
            await self._daemon.workers[mode.worker].status(_CHECK_SECONDS, check_mode=mode.name)
        except NotReadyError:
            return self._daemon.why_not(mode)
        except grpc.aio.AioRpcError as error:
            return f"The {mode.worker} worker gave no answer ({error.code().name}). Try again."
        return self._daemon.why_not(mode)

    async def _start_own(self, mode: Mode, own: SupervisedChild) -> None:
        """Starts our worker, then changes to the mode that it answers.

        Raises:
            SwitchError: it failed, or was not ready in time; it is stopped again.
        """
        before = own.pause
        self._start_again(own)
        try:
            await self._wait_for_own(own, mode)
            self._daemon.mode.set(mode)
        except BaseException:
            own.set_pause(before)
            await own.stop()
            raise

    async def _wait_for_own(self, own: SupervisedChild, mode: Mode) -> None:
        seconds = self._daemon.configuration.settings.supervisor.start_timeout_seconds
        worker = self._daemon.workers[CACHE_WORKER]

        def has_started() -> bool:
            # Who switches modes wants to know at once, not when the memory is free some day.
            waits = own.state is State.BACKOFF and own.supervisor.is_short_of_memory
            if waits or own.state in (State.FATAL, *_GONE):
                raise SwitchError(_why_it_ended(own))
            return own.state is State.READY and worker.model(mode.name) is not None

        try:
            await self._daemon.changes.until(has_started, seconds)
        except TimeoutError:
            raise SwitchError(why_not_ready(own, self._daemon.clock())) from None

    async def _wait_for_routes(self, mode: Mode) -> None:
        # Without a front end this times out: it gets the routes as soon as it is ready.
        with contextlib.suppress(TimeoutError):
            await self._daemon.changes.until(
                lambda: self._daemon.routes.serves(mode), _ACCEPT_SECONDS
            )


def _why_it_ended(own: SupervisedChild) -> str:
    exit_ = own.supervisor.last_exit
    reason = exit_.reason.removesuffix(".") if exit_ else "it was stopped"
    kind = "server" if own.spec.role is Role.SERVER else "worker"
    return f"The {own.name} {kind} does not start: {reason}. Mend that, then try again."
