"""A change of mode, step by step, by the policy of the mode that it goes to.

- start-first: the new mode's server is asked, and requests go there. Our own worker keeps running.
- stop-first: our own worker takes no more requests, finishes those it has and their writes, and
  ends; then the new mode's server is asked. Its memory is the server's as long as the mode lasts.
- Away from a stop-first mode our worker starts again: before the change when it answers the new
  mode, else beside it.

Promises: a target that cannot become ready leaves the old mode and our worker as they were, with
the reason; requests that run end where they began; those that come in between wait or are told to
come again.
"""

import asyncio
from typing import Final

import grpc.aio
import structlog

from anyclaude.runtime.upstreams import SwitchPolicy
from anyclaude.supervisor.child import Room, SupervisedChild
from anyclaude.supervisor.crew import StoppingError
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.links import NotReadyError
from anyclaude.supervisor.modes import CACHE_WORKER, Mode
from anyclaude.supervisor.routes import why_not_ready
from anyclaude.supervisor.supervisor import State
from anyclaude.supervisor.upstreams import CHECK_SECONDS, why_not
from anyclaude.supervisor.worker_client import LIST_SECONDS
from anyclaude.worker.v1 import worker_pb2

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# For the front end to take the new routes; one that is away gets them before its first request.
_TAKEN_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1
# A request that took its route just before the change is on its way to the worker for a moment.
_IDLE_POLLS: Final = 3
# Between two questions to a server that may come up now.
_ASK_AGAIN_SECONDS: Final = 0.5
_GONE: Final = frozenset({State.STOPPED, State.STOPPING})


class SwitchError(Exception):
    """The mode did not change; the message says why and what to do."""


def make_room_at_start(daemon: Daemon) -> None:
    """In a stop-first mode our own worker is not started in the first place."""
    mode = daemon.mode.get()
    worker = daemon.workers.get(CACHE_WORKER)
    if mode.policy is SwitchPolicy.STOP_FIRST and worker is not None:
        worker.child.make_room(Room(mode.name, is_made=True))


class Switcher:
    """Changes the mode; one call at a time."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def to(self, mode: Mode, ready_seconds: float = 0.0) -> None:
        """Returns once new requests go to `mode`.

        Args:
            mode: the new one.
            ready_seconds: how long a stop-first mode's server may take; at least the setting's.

        Raises:
            SwitchError: the old mode stays.
            OSError: the choice could not be kept; the old mode stays.
        """
        own = self._own()
        if mode.policy is SwitchPolicy.STOP_FIRST and own is not None:
            await self._stop_first(mode, own, max(ready_seconds, mode.ready_seconds))
        elif own is not None and own.room is not None and mode.worker == CACHE_WORKER:
            await self._start_own(mode, own)
        else:
            await self._start_first(mode, own)
        await self._taken(mode)

    def _own(self) -> SupervisedChild | None:
        worker = self._daemon.workers.get(CACHE_WORKER)
        return worker.child if worker else None

    async def _start_first(self, mode: Mode, own: SupervisedChild | None) -> None:
        if reason := await self._ask_why_not(mode):
            raise SwitchError(reason)
        self._daemon.mode.set(mode)
        if own is not None and own.room is not None:
            self._start_again(own)

    async def _stop_first(self, mode: Mode, own: SupervisedChild, ready_seconds: float) -> None:
        if mode.missing:
            raise SwitchError(why_not(self._daemon, mode))
        before = own.room
        if before is None:
            own.make_room(Room(mode.name))
        try:
            if before is None:
                await self._finish_work(own)
                await own.stop()
            await self._wait_for_server(mode, ready_seconds)
            self._daemon.mode.set(mode)
        except BaseException:
            self._undo(own, before)
            raise
        own.make_room(Room(mode.name, is_made=True))

    def _undo(self, own: SupervisedChild, before: Room | None) -> None:
        if before is not None:
            own.make_room(before)
        elif own.state in _GONE:
            self._start_again(own)
        else:
            own.make_room(None)

    def _start_again(self, own: SupervisedChild) -> None:
        try:
            self._daemon.crew.restart(own.name)
        except StoppingError:
            # The whole daemon ends, and its next run begins by the kept mode.
            _log.info("not started again: the daemon stops", worker=own.name)

    async def _finish_work(self, own: SupervisedChild) -> None:
        """Until the worker has nothing to do and nothing to write.

        Raises:
            SwitchError: it has not come to an end in time.
        """
        seconds = self._daemon.loaded.settings.supervisor.make_room_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._closed_to_requests()
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

    async def _closed_to_requests(self) -> None:
        """Until the front end knows, if there is one."""
        try:
            async with asyncio.timeout(_TAKEN_SECONDS):
                version = self._daemon.changes.version
                while not self._daemon.routes.is_current:
                    version = await self._daemon.changes.after(version)
        except TimeoutError:
            return

    async def _is_busy(self) -> bool:
        try:
            status = await self._daemon.workers[CACHE_WORKER].status(LIST_SECONDS)
        except NotReadyError:
            return False
        except grpc.aio.AioRpcError as error:
            _log.debug("worker slow to answer", why=error.details())
            return True
        disk = status.disk
        writes = disk.state == worker_pb2.DISK_STATE_SERVING and disk.pending_writes > 0
        return status.running_requests > 0 or status.queued_requests > 0 or writes

    async def _wait_for_server(self, mode: Mode, seconds: float) -> None:
        """Asks until it answers.

        Raises:
            SwitchError: it does not within `seconds`.
        """
        deadline = self._daemon.clock() + seconds
        while reason := await self._ask_why_not(mode):
            if self._daemon.clock() >= deadline:
                raise SwitchError(reason)
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

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

    async def _start_own(self, mode: Mode, own: SupervisedChild) -> None:
        """Starts our worker, then changes to the mode that it answers.

        Raises:
            SwitchError: it gave up, or does not get ready in time; it is stopped again.
        """
        before = own.room
        self._start_again(own)
        try:
            await self._wait_for_own(own, mode)
            self._daemon.mode.set(mode)
        except BaseException:
            own.make_room(before)
            await own.stop()
            raise

    async def _wait_for_own(self, own: SupervisedChild, mode: Mode) -> None:
        seconds = self._daemon.loaded.settings.supervisor.start_timeout_seconds
        worker, changes = self._daemon.workers[CACHE_WORKER], self._daemon.changes
        try:
            async with asyncio.timeout(seconds):
                version = changes.version
                while own.state is not State.READY or worker.model(mode.name) is None:
                    if own.state in (State.FATAL, *_GONE):
                        raise SwitchError(_why_it_ended(own))
                    version = await changes.after(version)
        except TimeoutError:
            raise SwitchError(why_not_ready(own, self._daemon.clock())) from None

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


def _why_it_ended(own: SupervisedChild) -> str:
    exit_ = own.supervisor.last_exit
    reason = exit_.reason.removesuffix(".") if exit_ else "it was stopped"
    return f"The {own.name} worker does not start: {reason}. Mend that, then try again."
