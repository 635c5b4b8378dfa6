"""The parts of a running daemon, created once and passed to the control services."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from anyclaude.runtime.loading import LoadedSettings
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import Children
from anyclaude.supervisor.configuration import Configuration
from anyclaude.supervisor.metrics import Metrics
from anyclaude.supervisor.modes import CurrentMode, Mode, Modes
from anyclaude.supervisor.records import Journal, RecordFollower
from anyclaude.supervisor.routes import RoutePusher, why_not_ready
from anyclaude.supervisor.speeds import Speeds
from anyclaude.supervisor.supervisor import State
from anyclaude.supervisor.worker_client import WorkerClient
from anyclaude.worker.v1 import worker_pb2

VERSION: Final = version("anyclaude")
# How soon the daemon notices that the current mode's server came up.
_RECHECK_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Daemon:
    configuration: Configuration
    # Reads the settings again, as they were read for the start.
    read_settings: Callable[[], LoadedSettings]
    home: str
    base_url: str
    # Wall clock, seconds.
    start_time: float
    # The supervisors' clock, monotonic seconds.
    clock: Callable[[], float]
    # Requests a clean stop.
    stop: Callable[[], None]
    changes: Changes
    children: Children
    workers: Mapping[str, WorkerClient]
    mode: CurrentMode
    routes: RoutePusher
    records: RecordFollower
    journal: Journal
    speeds: Speeds
    metrics: Metrics

    @property
    def modes(self) -> Modes:
        return self.configuration.modes

    def model(self, mode: Mode) -> worker_pb2.ModelInfo | None:
        """The model that answers `mode`; None until its worker has reported it."""
        worker = self.workers.get(mode.worker)
        return worker.model(mode.name) if worker else None

    def save_speeds(self) -> None:
        """Saves the measured speeds for the next run of the daemon."""
        found = {mode.name: self.model(mode) for mode in self.modes.values()}
        self.speeds.save({name: model.id if model else "" for name, model in found.items()})

    def why_not(self, mode: Mode) -> str:
        """Why requests in `mode` would fail, from what is known now; empty if they would not."""
        if mode.missing:
            return f"This mode cannot be used: {mode.missing}."
        worker = self.workers.get(mode.worker)
        if worker is None:
            return f"This daemon runs no {mode.worker} worker."
        server = self.children.server(mode.name)
        for child in (worker.child, *([server] if server else [])):
            if child.state is not State.READY:
                return why_not_ready(child, self.clock())
        return _why_unreachable(mode, worker.upstream(mode.name)) if mode.is_relayed else ""

    async def watch_current_server(self) -> None:
        """Checks the current mode's server again while it is down; runs until cancelled.

        Only a server on this machine is checked without a request from a user.
        """
        while True:
            version = self.changes.version
            mode = self.mode.get()
            if mode.is_relayed and not mode.is_remote and self.why_not(mode):
                await asyncio.sleep(_RECHECK_SECONDS)
                await self.workers[mode.worker].glance()
            else:
                await self.changes.after(version)


def _why_unreachable(mode: Mode, upstream: worker_pb2.UpstreamStatus | None) -> str:
    if upstream is None:
        return "The relay worker has not reported on its server yet."
    if mode.key_variable and not upstream.has_key:
        return (
            f"Its key is missing. Set {mode.key_variable} where anyclauded starts, "
            f"or upstreams.{mode.name}.api_key_file."
        )
    if upstream.reachability == worker_pb2.REACHABILITY_UNREACHABLE:
        return upstream.last_error or "Its server does not answer."
    return ""
