"""Which worker answers which mode, pushed to the front end at every change.

`table` computes the routes from the daemon's state; `RoutePusher` keeps the front end's copy equal
to them. The front end uses only its copy, so it answers messages while the daemon is busy or gone.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final

import grpc.aio
import structlog

from anyclaude.frontend.v1 import frontend_pb2, frontend_pb2_grpc
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import NotReadyError, SupervisedChild
from anyclaude.supervisor.children import Role
from anyclaude.supervisor.modes import OWN_MODE, Mode, Modes
from anyclaude.supervisor.supervisor import State, Supervisor
from anyclaude.supervisor.worker_client import WorkerClient

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# Assumed for a worker that has never become ready.
FIRST_START_SECONDS: Final = 5.0
_PUSH_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 0.1


def table(
    modes: Modes, workers: Mapping[str, WorkerClient], now: float
) -> list[frontend_pb2.Route]:
    """The routes of every mode that one of `workers` serves; `now` is the supervisors' clock."""
    return [
        route(mode, workers[mode.worker], now) for mode in modes.values() if mode.worker in workers
    ]


def route(mode: Mode, worker: WorkerClient, now: float) -> frontend_pb2.Route:
    child = worker.child
    answer = frontend_pb2.Route(
        mode=mode.name,
        worker_socket=str(child.socket_path),
        generation=child.supervisor.generation,
        state=_route_state(worker, mode),
        passthrough=mode.is_passthrough,
        model=worker.model(mode.name),
        relayed=mode.is_relayed,
    )
    if answer.state != frontend_pb2.ROUTE_STATE_READY:
        answer.reason = why_not_ready(child, now)
    if answer.state == frontend_pb2.ROUTE_STATE_STARTING:
        answer.retry_after.FromSeconds(math.ceil(seconds_to_ready(child, now)))
    return answer


def _route_state(worker: WorkerClient, mode: Mode) -> frontend_pb2.RouteState:
    # Requests wait until the change of mode succeeds or fails.
    if worker.child.pause is not None and not worker.child.pause.is_complete:
        return frontend_pb2.ROUTE_STATE_STARTING
    if worker.child.state in (State.FATAL, State.STOPPED):
        return frontend_pb2.ROUTE_STATE_UNAVAILABLE
    # A worker that has not reported its model yet is still starting.
    if worker.child.state is State.READY and worker.model(mode.name) is not None:
        return frontend_pb2.ROUTE_STATE_READY
    return frontend_pb2.ROUTE_STATE_STARTING


def why_not_ready(child: SupervisedChild, now: float) -> str:
    """One sentence for people: what is wrong and what to do."""
    name, supervisor = child.name, child.supervisor
    if child.pause is not None and not child.pause.is_complete:
        return f"The {name} worker is being stopped to free memory for mode {child.pause.mode}."
    ended = supervisor.last_exit.reason if supervisor.last_exit else "unknown"
    if child.state is State.FATAL:
        return (
            f"The {name} worker gave up: {ended.removesuffix('.')}. "
            f"Mend that, then run `anyclaudectl worker restart {name}`.{_next_try(supervisor, now)}"
        )
    if child.state is State.ABORTING:
        return f"The {name} worker is being ended ({supervisor.verdict}) and then starts again."
    if child.state is State.BACKOFF:
        seconds = math.ceil(max(0.0, (supervisor.retry_at or now) - now))
        if supervisor.is_short_of_memory:
            return f"The {name} worker waits for memory and tries again in {seconds} s. {ended}"
        return (
            f"The {name} worker ended ({ended.removesuffix('.')}) and starts again in {seconds} s."
        )
    if child.state is State.STOPPED and child.pause is not None:
        return (
            f"The {name} worker is stopped (stop-first) while {child.pause.mode} is the mode. "
            f"Run `anyclaudectl mode {OWN_MODE}` to start it."
        )
    if child.state is State.STOPPED and child.spec.role is Role.SERVER:
        return f"The {name} server is stopped. Run `anyclaudectl mode {name}` to start it."
    if child.state is State.STOPPED:
        return f"The {name} worker is stopped."
    return f"The {name} worker is starting."


def _next_try(supervisor: Supervisor, now: float) -> str:
    if supervisor.retry_at is None:
        return ""
    minutes = max(1, math.ceil((supervisor.retry_at - now) / 60))
    return f" It tries again by itself in {minutes} min."


def seconds_to_ready(child: SupervisedChild, now: float) -> float:
    """How long a client should wait before it tries again; at least one second."""
    supervisor = child.supervisor
    start = supervisor.start_seconds or FIRST_START_SECONDS
    if child.state is State.BACKOFF and supervisor.retry_at is not None:
        return max(1.0, supervisor.retry_at - now + start)
    if child.state is State.STARTING and supervisor.started_at is not None:
        return max(1.0, start - (now - supervisor.started_at))
    return max(1.0, start)


class RoutePusher:
    """Keeps the front end's routes equal to `table`."""

    def __init__(
        self,
        frontend: SupervisedChild,
        workers: Mapping[str, WorkerClient],
        modes: Modes,
        mode: Callable[[], Mode],
        changes: Changes,
    ) -> None:
        self._frontend = frontend
        self._modes = modes
        self._workers = workers
        self._mode = mode
        self._changes = changes
        # Never reset, so that no front end ever sees an older number.
        self._version = 0
        # Generation of the front end, default mode and routes that were accepted last.
        self._accepted: tuple[int, str, list[frontend_pb2.Route]] | None = None

    def serves(self, mode: Mode) -> bool:
        """Whether the current front end sends requests of `mode` to a worker that is ready."""
        if self._accepted is None or mode.worker not in self._workers:
            return False
        generation, default, routes = self._accepted
        current = route(mode, self._workers[mode.worker], asyncio.get_running_loop().time())
        return (
            self._frontend.state is State.READY
            and (generation, default) == (self._frontend.supervisor.generation, mode.name)
            and current.state == frontend_pb2.ROUTE_STATE_READY
            and current in routes
        )

    @property
    def is_current(self) -> bool:
        """Whether the current front end has accepted the current routes."""
        return self._accepted == self._wanted()

    async def run(self) -> None:
        """Pushes until cancelled."""
        await self._changes.follow(self._push, _RETRY_SECONDS)

    async def _push(self) -> bool:
        """Returns False if the push has to be repeated."""
        wanted = self._wanted()
        if wanted == self._accepted:
            return True
        try:
            await self._set(wanted[1], wanted[2])
        except NotReadyError:
            return True
        except grpc.aio.AioRpcError as error:
            _log.warning("front end did not accept routes", why=error.details())
            return False
        self._accepted = wanted
        self._changes.notify()
        return True

    def _wanted(self) -> tuple[int, str, list[frontend_pb2.Route]]:
        routes = table(self._modes, self._workers, asyncio.get_running_loop().time())
        return self._frontend.supervisor.generation, self._mode().name, routes

    async def _set(self, default: str, routes: list[frontend_pb2.Route]) -> None:
        stub = frontend_pb2_grpc.FrontendServiceStub(await self._frontend.channel())  # type: ignore[no-untyped-call]
        self._version += 1
        request = frontend_pb2.SetRoutesRequest(
            version=self._version, default_mode=default, routes=routes
        )
        await stub.SetRoutes(request, timeout=_PUSH_SECONDS)
