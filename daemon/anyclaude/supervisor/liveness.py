"""Judges from its pulse whether a child makes progress.

Each phase has a budget: how long its counter may stand still. The event loop's beats have one too.
The budgets start again when the judge itself did not run for a while: after the machine slept,
after the daemon was stopped or debugged, after a jump of the clock. What a child did not do in that
time says nothing about the child. A sleep therefore never ends a child, however often it happens.
"""

import sys
import time
from collections.abc import Callable
from typing import Final

import psutil

from anyclaude.runtime.pulse import BEAT_SECONDS, Counts, Phase
from anyclaude.runtime.settings import SupervisorSettings

CHECK_SECONDS: Final = BEAT_SECONDS
# A check that comes this late means that the daemon did not run.
GAP_SECONDS: Final = 5 * CHECK_SECONDS
# A change is read up to one check late, and so is the end of a budget.
_LATENESS_SECONDS: Final = 2 * CHECK_SECONDS


def clock() -> float:
    """Monotonic seconds that also pass while the machine sleeps."""
    # On Linux CLOCK_MONOTONIC stands still during sleep; on macOS it does not.
    linux = sys.platform == "linux"
    return time.clock_gettime(time.CLOCK_BOOTTIME if linux else time.CLOCK_MONOTONIC)


def is_debugged(pid: int) -> bool:
    """Whether a debugger has paused the process; on macOS this is not known, and False."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_TRACING_STOP
    except psutil.Error:
        return False


class Liveness:
    """Judges one process at a time."""

    def __init__(self, settings: SupervisorSettings, clock: Callable[[], float] = clock) -> None:
        self._clock = clock
        self._loop_budget = settings.loop_timeout_seconds
        self._budgets = {
            Phase.PREFILL: settings.prefill_chunk_timeout_seconds,
            Phase.DECODE: settings.decode_turn_timeout_seconds,
            Phase.COMMAND: settings.command_timeout_seconds,
        }
        self.begin()

    def begin(self) -> None:
        """Starts all budgets again, at the next judgement."""
        self._judged_at: float | None = None

    def judge(self, counts: Counts) -> str:
        """Why the process counts as stopped, or an empty string."""
        now = self._clock()
        if self._judged_at is None or not 0 <= now - self._judged_at <= GAP_SECONDS:
            self._counts = counts
            self._beat_at = self._step_at = now
        self._judged_at = now
        if counts.beats != self._counts.beats:
            self._beat_at = now
        if counts.steps != self._counts.steps:
            self._step_at = now
        self._counts = counts
        return self._verdict(now, counts.phase)

    def _verdict(self, now: float, phase: Phase) -> str:
        if _is_over(now - self._beat_at, self._loop_budget):
            return f"its event loop did not run for {self._loop_budget:g} s"
        budget = self._budgets.get(phase)
        if budget is not None and _is_over(now - self._step_at, budget):
            return f"no progress for {budget:g} s in phase {phase.name.lower()}"
        return ""


def _is_over(seconds: float, budget: float) -> bool:
    return seconds >= budget - _LATENESS_SECONDS
