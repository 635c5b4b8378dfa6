"""One supervised child: the table of `supervisor` tied to a real process, timers and sockets."""

import asyncio
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from anyclaude.runtime.child import Birth
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.settings import Settings
from anyclaude.runtime.streams import stream_socket
from anyclaude.supervisor.children import ChildSpec, Role, environment
from anyclaude.supervisor.process import ChildProcess, Launch
from anyclaude.supervisor.supervisor import Event, Exit, State, Supervisor

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class World:
    """What all children of one daemon share."""

    loop: asyncio.AbstractEventLoop
    paths: Paths
    settings: Settings
    environ: Mapping[str, str]
    # The bound HTTP socket.
    listen_fd: int
    # Number of every child's first process; past those of a daemon that died.
    first_generation: int
    # Called at every change of a child's state.
    changed: Callable[[], None]


@dataclass(frozen=True)
class Room:
    """A child ends, or has ended, for a mode to have its memory."""

    mode: str
    # The child is gone and stays so while that is the service's mode.
    is_made: bool = False


class SupervisedChild:
    """Implements `supervisor.Actions`; ask `supervisor` for the state."""

    def __init__(self, spec: ChildSpec, world: World) -> None:
        self.spec = spec
        self._world = world
        self._process: ChildProcess | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self._is_last_run = False
        # None: it is there for requests.
        self.room: Room | None = None
        self.supervisor = Supervisor(
            world.settings.supervisor,
            self,
            clock=world.loop.time,
            random=random.SystemRandom().random,
            first_generation=world.first_generation,
        )

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def state(self) -> State:
        return self.supervisor.state

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def socket_path(self) -> Path:
        """Where the current process serves its contract."""
        return self._world.paths.worker_socket(self.name, self.supervisor.generation)

    def make_room(self, room: Room | None) -> None:
        """Notes what the child is stopped for; stopping it is another call."""
        self.room = room
        self._world.changed()

    def begin_last_run(self) -> None:
        """The process may finish what it does; once it is gone, none follows."""
        self._is_last_run = True
        self._rest_if_gone()

    def _rest_if_gone(self) -> None:
        if self._is_last_run and self.state is State.BACKOFF:
            self.supervisor.handle(Event.STOP)

    async def stop(self) -> None:
        """Ends the process, kindly first; returns when it is gone."""
        self.supervisor.handle(Event.STOP)
        if self.state is not State.STOPPED:
            self._stopped.clear()
            await self._stopped.wait()

    # supervisor.Actions

    def spawn(self, generation: int) -> None:
        try:
            self._process = ChildProcess(
                self._world.loop, self._launch(generation), self._ready, self._exited
            )
        except OSError as error:
            exit_ = Exit(None, "", f"could not be started: {error}")
            self._world.loop.call_soon(self._exited, exit_)
            return
        _log.info("child started", worker=self.name, pid=self.pid, generation=generation)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def abort(self) -> None:
        self.signal(signal.SIGABRT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def start_timer(self, seconds: float, event: Event) -> None:
        self._timer = self._world.loop.call_later(seconds, self.supervisor.handle, event)

    def stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def changed(self) -> None:
        if self.state is State.STOPPED:
            self._stopped.set()
        self._world.changed()

    def signal(self, number: signal.Signals) -> None:
        # None while a spawn that failed has not been reported yet.
        if self._process:
            self._process.signal(number)

    def _launch(self, generation: int) -> Launch:
        listen_fd = self._world.listen_fd if self.spec.role is Role.FRONTEND else None
        birth = Birth(
            name=self.name,
            generation=generation,
            socket_path=self.socket_path,
            paths=self._world.paths,
            settings=self._world.settings,
            listen_fd=listen_fd,
        )
        inherited = environment(
            self.spec, self._world.environ, self._world.paths, self._world.settings.upstreams
        )
        return Launch(self.spec.command, inherited, birth)

    def _ready(self) -> None:
        _log.info("child ready", worker=self.name, pid=self.pid)
        self.supervisor.handle(Event.READY)

    def _exited(self, exit_: Exit) -> None:
        socket_path = self.socket_path
        self._process = None
        self.supervisor.handle(Event.EXITED, exit_)
        for path in (socket_path, stream_socket(socket_path)):
            path.unlink(missing_ok=True)
        self._rest_if_gone()
        self._log_exit()

    def _log_exit(self) -> None:
        exit_ = self.supervisor.last_exit
        assert exit_ is not None
        level = _log.info if self.state in (State.STOPPED, State.STARTING) else _log.error
        level("child ended", worker=self.name, reason=exit_.reason, state=self.state.value)
