"""Gives memory back when the whole machine runs short of it.

The kernel's level is looked at now and then; when it rises, idle KV caches leave for the disk: the
oldest fifth at a warning, all of them when it is critical. A level that stays asks for no more.
"""

import threading
from collections.abc import Callable

import structlog

from anyclaude.mlx.machine import Machine, Pressure

log = structlog.get_logger(__name__)


class PressureWatch:
    """Looks from a thread of its own."""

    def __init__(
        self, machine: Machine, interval_seconds: float, relieve: Callable[[Pressure], None]
    ) -> None:
        """
        Args:
            machine: this one.
            interval_seconds: between two looks.
            relieve: called when the level rises, on the watch's thread.
        """
        self.level = Pressure.NORMAL
        self._machine = machine
        self._interval_seconds = interval_seconds
        self._relieve = relieve

    def start(self) -> None:
        threading.Thread(target=self._watch, name="pressure", daemon=True).start()

    def look(self) -> None:
        """One look."""
        before, self.level = self.level, self._machine.pressure()
        if self.level > before:
            log.warning("the machine is short of memory", pressure=self.level.name.lower())
            self._relieve(self.level)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._interval_seconds):
            self.look()
