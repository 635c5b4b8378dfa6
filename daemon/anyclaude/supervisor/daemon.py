"""The parts of a running daemon, wired once and handed to the control services."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from anyclaude.runtime.settings import LoadedSettings
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.crew import Crew
from anyclaude.supervisor.metrics import Metrics
from anyclaude.supervisor.modes import CurrentMode, Mode, Modes
from anyclaude.supervisor.records import Journal, RecordFollower
from anyclaude.supervisor.routes import RoutePusher
from anyclaude.supervisor.speeds import Speeds
from anyclaude.supervisor.worker_client import WorkerClient
from anyclaude.worker.v1 import worker_pb2

VERSION: Final = version("anyclaude")


@dataclass(frozen=True)
class Daemon:
    loaded: LoadedSettings
    home: str
    base_url: str
    # Wall clock, seconds.
    start_time: float
    # The supervisors' clock, monotonic seconds.
    clock: Callable[[], float]
    # Asks for a clean stop.
    stop: Callable[[], None]
    changes: Changes
    crew: Crew
    workers: Mapping[str, WorkerClient]
    modes: Modes
    mode: CurrentMode
    routes: RoutePusher
    records: RecordFollower
    journal: Journal
    speeds: Speeds
    metrics: Metrics

    def model(self, mode: Mode) -> worker_pb2.ModelInfo | None:
        """The model that answers `mode`; None while its worker does not say."""
        worker = self.workers.get(mode.worker)
        return worker.model(mode.name) if worker else None

    def keep_speeds(self) -> None:
        """For the next run, which measures nothing until it is asked something."""
        found = {mode.name: self.model(mode) for mode in self.modes.values()}
        self.speeds.keep({name: model.id if model else "" for name, model in found.items()})
