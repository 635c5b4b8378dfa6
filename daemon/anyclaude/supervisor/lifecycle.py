"""The daemon's life: startup, main loop, shutdown.

Promises:
- SIGTERM, SIGINT and the Shutdown call stop cleanly: the front end drains, then the workers
  stop, the sockets are removed, exit 0. A second signal kills the children at once, exit 1.
- SIGHUP applies changed settings. It stops a daemon in a terminal, since the terminal is closed.
- The control socket answers from before the first child is ready until after the last is gone.
- The HTTP socket listens from before the first child until the stop begins.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import uvloop

from anyclaude.runtime.child import end_of_start
from anyclaude.runtime.loading import LoadedSettings
from anyclaude.runtime.paths import Paths
from anyclaude.supervisor import reload
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import ChildContext, Children
from anyclaude.supervisor.children import ChildSpec, Role, server_specs
from anyclaude.supervisor.configuration import Configuration
from anyclaude.supervisor.control.server import ControlServer
from anyclaude.supervisor.daemon import VERSION, Daemon
from anyclaude.supervisor.greeting import greet
from anyclaude.supervisor.history import History
from anyclaude.supervisor.listener import base_url, refuse_without_frontend
from anyclaude.supervisor.lock import clear_stale
from anyclaude.supervisor.metrics import Metrics
from anyclaude.supervisor.modes import CurrentMode, Mode
from anyclaude.supervisor.records import Journal, Record, RecordFollower
from anyclaude.supervisor.routes import RoutePusher
from anyclaude.supervisor.speeds import Speeds
from anyclaude.supervisor.switch import pause_worker_at_start
from anyclaude.supervisor.worker_client import WorkerClient

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# For calls on the control socket that are still running.
_CONTROL_GRACE_SECONDS: Final = 1.0
# timeout(1) and some service managers signal a process and then its whole group. That is one
# request to stop, not two.
_SAME_STOP_SECONDS: Final = 0.3


@dataclass(frozen=True)
class Start:
    """What a run of the daemon begins with."""

    loaded: LoadedSettings
    # Reads them again.
    read_settings: Callable[[], LoadedSettings]
    # Folders that exist; the sockets in them belong to this daemon.
    paths: Paths
    # The mode to start in.
    mode: Mode
    # The bound HTTP socket; closed when the stop begins.
    listener: socket.socket
    # The children, in the order in which they stop.
    specs: Sequence[ChildSpec]
    # Variables of which the children inherit some.
    environ: Mapping[str, str]


class Server:
    """One run of the daemon; the caller has the lock."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._stop = asyncio.Event()
        self._stop_requested_at = 0.0
        self._failed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> int:
        """Returns the exit code."""
        await self._startup()
        await self._stop.wait()
        await self._shutdown()
        return 1 if self._failed else 0

    async def _startup(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._daemon = self._wire()
        self._control = ControlServer(self._daemon, self._start.paths)
        for number in _STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._signalled, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        await self._control.start()
        self._begin(self._control.keep_health())
        self._begin(self._control.keep_listening())
        self._begin(self._daemon.routes.run())
        self._begin(self._daemon.records.run())
        self._begin(self._daemon.watch_current_server())
        for worker in self._daemon.workers.values():
            self._begin(worker.follow())
        frontend = self._daemon.children.frontend
        self._begin(refuse_without_frontend(self._start.listener, frontend, self._daemon.changes))
        pause_worker_at_start(self._daemon)
        self._daemon.children.start()
        if self._daemon.children.server(self._start.mode.name):
            self._daemon.children.restart(self._start.mode.name)
        self._begin(self._daemon.children.watch_progress())
        self._begin(greet(self._daemon))
        end_of_start()
        _log.info("anyclauded started", pid=os.getpid(), url=self._daemon.base_url)

    async def _shutdown(self) -> None:
        _log.info("stopping")
        self._daemon.save_speeds()
        await self._control.drain()
        # Only the front end has the socket open now; it closes it when it drains.
        self._start.listener.close()
        await self._daemon.children.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._daemon.children.close_channels()
        self._daemon.changes.close()
        await self._control.stop(_CONTROL_GRACE_SECONDS)
        clear_stale(self._start.paths)
        _log.info("anyclauded stopped")

    def _wire(self) -> Daemon:
        changes = Changes()
        configuration = Configuration(self._start.loaded)
        servers = server_specs(self._start.loaded.settings.upstreams)
        children = Children([*self._start.specs, *servers], self._context(configuration, changes))
        workers = {
            child.name: WorkerClient(child, changes)
            for child in children
            if child.spec.role is Role.WORKER
        }
        modes = configuration.modes
        mode = CurrentMode(self._start.mode, self._start.paths.mode_file, changes)
        log, paths = self._start.loaded.settings.log, self._start.paths
        history = History(paths.history_file, log.max_records) if log.keep_records else None
        journal = Journal(log.max_records, history)
        metrics = Metrics(children, VERSION, modes)

        def on_record(record: Record) -> None:
            journal.add(record)
            metrics.observe(record)

        return Daemon(
            configuration=configuration,
            read_settings=self._start.read_settings,
            home=self._start.environ.get("ANYCLAUDE_HOME") or str(self._start.paths.state),
            base_url=base_url(self._start.listener),
            start_time=time.time(),
            clock=self._loop.time,
            stop=self._stop.set,
            changes=changes,
            children=children,
            workers=workers,
            mode=mode,
            routes=RoutePusher(children.frontend, workers, modes, mode.get, changes),
            records=RecordFollower(children.frontend, changes, on_record, metrics.drop),
            journal=journal,
            speeds=Speeds(journal, log.max_records, paths.speeds_file),
            metrics=metrics,
        )

    def _context(self, configuration: Configuration, changes: Changes) -> ChildContext:
        return ChildContext(
            loop=self._loop,
            paths=self._start.paths,
            settings=lambda: configuration.settings,
            environ=self._start.environ,
            listen_fd=self._start.listener.fileno(),
            first_generation=clear_stale(self._start.paths),
            changed=changes.notify,
        )

    def _begin(self, work: Awaitable[None]) -> None:
        """Runs `work` concurrently; an error in it ends the daemon."""
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.error("a part of the daemon failed", exc_info=task.exception())
            self._failed = True
            self._stop.set()

    def _signalled(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            _log.info("stop requested", signal=number.name)
            self._stop_requested_at = self._loop.time()
            self._stop.set()
        elif self._loop.time() - self._stop_requested_at > _SAME_STOP_SECONDS:
            _log.warning("second signal: killing the children", signal=number.name)
            self._failed = True
            self._daemon.children.kill()

    def _hung_up(self) -> None:
        if sys.stdin.isatty() or sys.stderr.isatty():
            self._signalled(signal.SIGHUP)
            return
        try:
            reload.apply(self._daemon)
        except reload.ReloadError as error:
            _log.error("settings not reloaded", why=str(error))


def run(start: Start) -> int:
    """Runs until a stop is requested; returns the exit code."""
    return uvloop.run(Server(start).serve())
