"""The parts of a running daemon, wired once and handed to the control services."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from anyclaude.daemon.changes import Changes
from anyclaude.daemon.crew import Crew
from anyclaude.daemon.metrics import Metrics
from anyclaude.daemon.modes import CurrentMode, Modes
from anyclaude.daemon.records import Journal, RecordFollower
from anyclaude.daemon.routes import RoutePusher
from anyclaude.daemon.worker_client import WorkerClient
from anyclaude.runtime.settings import LoadedSettings

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
    metrics: Metrics
