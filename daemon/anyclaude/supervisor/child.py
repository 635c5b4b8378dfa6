"""The daemon's children: the state table of `supervisor` applied to real processes and sockets.

`SupervisedChild` is one child; `Children` is all of them, started together and stopped in order.
A gRPC channel belongs to one generation of a child: each process serves on its own socket, so a
channel to an earlier process can never reach a later one.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import structlog

from anyclaude.runtime.channels import aio_channel
from anyclaude.runtime.child import Birth
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.pulse import Pulse
from anyclaude.runtime.settings import Settings
from anyclaude.runtime.streams import stream_socket
from anyclaude.supervisor.children import ChildSpec, Role, environment
from anyclaude.supervisor.liveness import CHECK_SECONDS, Liveness, is_debugged
from anyclaude.supervisor.process import ChildProcess, Launch
from anyclaude.supervisor.supervisor import Event, Exit, State, Supervisor

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class NotReadyError(Exception):
    """The child serves nothing at the moment."""


class UnknownChildError(Exception):
    """No child has this name; the message lists the names."""


class StoppingError(Exception):
    """The daemon is stopping and starts no child any more."""


@dataclass(frozen=True)
class ChildContext:
    """What all children of one daemon share."""

    loop: asyncio.AbstractEventLoop
    paths: Paths
    # Those of the next process that starts.
    settings: Callable[[], Settings]
    environ: Mapping[str, str]
    # The bound HTTP socket.
    listen_fd: int
    # Generation of every child's first process; higher than those of a daemon that was killed.
    first_generation: int
    # Called at every change of a child's state.
    changed: Callable[[], None]


@dataclass(frozen=True)
class Pause:
    """A child is stopped so that the server of a stop-first mode can have its memory."""

    mode: str
    # The change of mode is over: the child stays stopped while `mode` is the current mode.
    is_complete: bool = False


class SupervisedChild:
    """Implements `supervisor.Actions`; the state is in `supervisor`."""

    def __init__(self, spec: ChildSpec, context: ChildContext) -> None:
        self.spec = spec
        self._context = context
        self._process: ChildProcess | None = None
        # Of the latest process.
        self._pulse = Pulse()
        self._liveness = Liveness(context.settings().supervisor)
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self._is_last_run = False
        self._channel: grpc.aio.Channel | None = None
        self._channel_generation = 0
        self.pause: Pause | None = None
        self.supervisor = Supervisor(
            context.settings().supervisor,
            self,
            clock=context.loop.time,
            random=random.SystemRandom().random,
            first_generation=context.first_generation,
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
        return self._context.paths.worker_socket(self.name, self.supervisor.generation)

    async def channel(self) -> grpc.aio.Channel:
        """The channel to the current process.

        Raises:
            NotReadyError: the child is not READY.
        """
        if self.state is not State.READY:
            raise NotReadyError(self.name)
        generation, old = self.supervisor.generation, self._channel
        if old is not None and self._channel_generation == generation:
            return old
        # Replaced before the first await, so that concurrent callers share the new channel.
        self._channel = channel = aio_channel(self.socket_path)
        self._channel_generation = generation
        if old is not None:
            await old.close()
        return channel

    async def close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def set_pause(self, pause: Pause | None) -> None:
        """Records why the child is stopped; stopping it is another call."""
        self.pause = pause
        self._context.changed()

    def begin_last_run(self) -> None:
        """The process may finish its work; when it ends, no other is started."""
        self._is_last_run = True
        self._rest_if_gone()

    def _rest_if_gone(self) -> None:
        if self._is_last_run and self.state is State.BACKOFF:
            self.supervisor.handle(Event.STOP)

    async def stop(self) -> None:
        """Ends the process by SIGTERM, after a timeout by SIGKILL; returns when it is gone."""
        self.supervisor.handle(Event.STOP)
        if self.state is not State.STOPPED:
            self._stopped.clear()
            await self._stopped.wait()

    # supervisor.Actions

    def spawn(self, generation: int) -> None:
        try:
            self._process = self._start_process(generation)
        except OSError as error:
            exit_ = Exit(None, "", f"could not be started: {error}")
            self._context.loop.call_soon(self._exited, exit_)
            return
        _log.info("child started", worker=self.name, pid=self.pid, generation=generation)

    def _start_process(self, generation: int) -> ChildProcess:
        self._pulse, fd = Pulse.create()
        try:
            launch = self._launch(generation, fd)
            return ChildProcess(self._context.loop, launch, self._ready, self._exited)
        finally:
            os.close(fd)

    def check_progress(self) -> None:
        """Ends the process if it makes no progress."""
        if self.state is not State.READY or self.pid is None:
            return
        why = self._liveness.judge(self._pulse.read())
        if not why:
            return
        if is_debugged(self.pid):
            self._liveness.begin()
            return
        _log.error("child makes no progress", worker=self.name, pid=self.pid, why=why)
        self.supervisor.handle(Event.STALLED, why=why)

    def terminate(self) -> None:
        self._end_by(signal.SIGTERM)

    def abort(self) -> None:
        self._end_by(signal.SIGABRT)

    def _end_by(self, number: signal.Signals) -> None:
        """Also continues a stopped process, which would not act on the signal until then."""
        self.signal(number)
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def start_timer(self, seconds: float, event: Event) -> None:
        self._timer = self._context.loop.call_later(seconds, self.supervisor.handle, event)

    def stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def changed(self) -> None:
        if self.state is State.STOPPED:
            self._stopped.set()
        self._context.changed()

    def signal(self, number: signal.Signals) -> None:
        # There is no process while a failed spawn has not been reported yet.
        if self._process:
            self._process.signal(number)

    def _launch(self, generation: int, pulse_fd: int) -> Launch:
        context, settings = self._context, self._context.settings()
        birth = Birth(
            name=self.name,
            generation=generation,
            socket_path=self.socket_path,
            paths=context.paths,
            settings=settings,
            listen_fd=context.listen_fd if self.spec.role is Role.FRONTEND else None,
            pulse_fd=pulse_fd,
        )
        inherited = environment(self.spec, context.environ, context.paths, settings.upstreams)
        return Launch(self.spec.command, inherited, birth, self.spec.role is Role.SERVER)

    def _ready(self) -> None:
        _log.info("child ready", worker=self.name, pid=self.pid)
        self._liveness.begin()
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


class Children:
    """The children by name, in the order of their list."""

    def __init__(self, specs: Sequence[ChildSpec], context: ChildContext) -> None:
        self._children = {spec.name: SupervisedChild(spec, context) for spec in specs}
        self._stopping = False

    def __iter__(self) -> Iterator[SupervisedChild]:
        return iter(self._children.values())

    def __getitem__(self, name: str) -> SupervisedChild:
        """Raises UnknownChildError if no child has this name."""
        try:
            return self._children[name]
        except KeyError:
            known = ", ".join(self._children)
            raise UnknownChildError(f'There is no worker "{name}". Workers: {known}.') from None

    @property
    def frontend(self) -> SupervisedChild:
        return next(child for child in self if child.spec.role is Role.FRONTEND)

    def start(self) -> None:
        """Starts every child that is not paused; servers start with their modes."""
        for child in self:
            if child.pause is None and child.spec.role is not Role.SERVER:
                child.supervisor.handle(Event.SPAWN)

    def server(self, mode: str) -> SupervisedChild | None:
        """The server that the service runs for a mode."""
        child = self._children.get(mode)
        return child if child and child.spec.role is Role.SERVER else None

    async def watch_progress(self) -> None:
        """Ends children that make no progress; runs until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for child in self:
                child.check_progress()

    def restart(self, name: str) -> SupervisedChild:
        """Stops the child if it runs and starts it again; its earlier deaths no longer count.

        Raises:
            UnknownChildError
            StoppingError
        """
        child = self[name]
        if self._stopping:
            raise StoppingError("anyclauded is stopping; no worker starts any more.")
        child.set_pause(None)
        child.supervisor.handle(Event.RESTART)
        return child

    async def stop(self) -> None:
        """Stops the front end before the workers, which answer its last requests."""
        self._stopping = True
        for child in self:
            child.begin_last_run()
        for role in Role:
            await asyncio.gather(*(child.stop() for child in self if child.spec.role is role))

    def kill(self) -> None:
        """Kills every process now; a `stop` under way then returns soon."""
        for child in self:
            child.signal(signal.SIGKILL)

    async def close_channels(self) -> None:
        for child in self:
            await child.close_channel()
