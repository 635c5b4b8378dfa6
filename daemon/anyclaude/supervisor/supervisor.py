"""The supervisor of one child, as a table of (state, event) and tiny handlers.

Promises:
- At most one process exists; a new one is spawned only after the exit of the last was seen.
- Each state owns at most one timer, and leaving the state ends it.
- A child that makes no progress is aborted, so that its stack is in the log, and killed after
  `abort_timeout_seconds`; this is a death.
- A death counts when nobody requested it, whatever its exit code, unless the child was ready for
  `stable_seconds`; `crash_limit` deaths within `crash_window_seconds` end in FATAL, and exit codes
  69 and 78 end there at once.
- Exit code 71 (short of memory) never counts: the child starts again with growing pauses.
- FATAL is left by a restart or stop request. After a crash loop it is also left for one try every
  `give_up_retry_seconds`; a child that dies in it before it is stable is FATAL again.
- An event that a state has no handler for is a bug of ours, and raises.

Nothing here knows processes, loops or wall clocks; `Actions` does.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from anyclaude.runtime.child import ExitCode
from anyclaude.runtime.settings import SupervisorSettings

PERMANENT_CODES: Final = frozenset({ExitCode.UNAVAILABLE, ExitCode.CONFIG})
JITTER: Final = 0.2
KEPT_DEATHS: Final = 20


class State(Enum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    # Made no progress; is being ended, and then starts again by itself.
    ABORTING = "aborting"
    # Died; starts again by itself.
    BACKOFF = "backoff"
    # Gave up; a restart request tries again, and after a crash loop so does a long pause.
    FATAL = "fatal"


class Event(Enum):
    SPAWN = "spawn requested"
    READY = "ready"
    EXITED = "exited"
    START_TIMEOUT = "start timeout"
    STALLED = "stalled"
    ABORT_TIMEOUT = "abort timeout"
    BACKOFF_ELAPSED = "backoff elapsed"
    STOP = "stop requested"
    STOP_TIMEOUT = "stop timeout"
    RESTART = "restart requested"


class _AfterStop(Enum):
    """What follows when the current stop is complete."""

    REST = "rest"
    SPAWN = "spawn"


@dataclass(frozen=True)
class Exit:
    """How a process ended; exactly one of `code` and `signal` is set, or neither if none began."""

    code: int | None
    signal: str
    reason: str
    stderr_tail: str = ""


class Actions(Protocol):
    """The effects that the handlers need; each call returns at once."""

    def spawn(self, generation: int) -> None: ...

    def terminate(self) -> None: ...

    def abort(self) -> None:
        """Ends the process in a way that writes its stack to the log."""

    def kill(self) -> None: ...

    def start_timer(self, seconds: float, event: Event) -> None: ...

    def stop_timer(self) -> None: ...

    def changed(self) -> None:
        """The state has changed."""


class Supervisor:
    """Keeps one child running; events come in by `handle`, effects go out by `Actions`."""

    def __init__(
        self,
        settings: SupervisorSettings,
        actions: Actions,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        first_generation: int = 1,
    ) -> None:
        """Starts STOPPED; `clock` gives monotonic seconds, `random` is uniform in [0, 1)."""
        self._settings = settings
        self._actions = actions
        self._clock = clock
        self._random = random
        self._generation = first_generation - 1
        self._spawns = 0
        self._failures = 0
        self._counted: deque[float] = deque()
        # In a crash loop that has not ended yet.
        self._gave_up = False
        self._was_stable = False
        # The latest deaths, each with its time.
        self.deaths: deque[tuple[float, Exit]] = deque(maxlen=KEPT_DEATHS)
        self._after_stop = _AfterStop.REST
        # Why we end the process ourselves; shown in place of its own reason.
        self.verdict = ""
        self.state = State.STOPPED
        self.last_exit: Exit | None = None
        self.last_exit_at: float | None = None
        self.started_at: float | None = None
        self.ready_at: float | None = None
        self.retry_at: float | None = None
        # How long the last start took.
        self.start_seconds: float | None = None

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def restart_count(self) -> int:
        return max(0, self._spawns - 1)

    @property
    def is_short_of_memory(self) -> bool:
        """Whether the last process ended because other programs use the memory."""
        return self.last_exit is not None and self.last_exit.code == ExitCode.SHORT_OF_MEMORY

    def handle(self, event: Event, exit_: Exit | None = None, *, why: str = "") -> None:
        """Handles one event; `exit_` is given with EXITED only, `why` with STALLED only."""
        assert (event is Event.EXITED) == (exit_ is not None)
        assert (event is Event.STALLED) == bool(why)
        handler = _TABLE.get((self.state, event))
        assert handler is not None, f"{event.value} in state {self.state.value}"
        if exit_ is not None:
            self._note(exit_)
        self.verdict = why or self.verdict
        handler(self)

    def _note(self, exit_: Exit) -> None:
        reason = self.verdict or exit_.reason
        self.last_exit = Exit(exit_.code, exit_.signal, reason, exit_.stderr_tail)
        self.last_exit_at = self._clock()
        self.verdict = ""

    def _enter(self, state: State) -> None:
        self._actions.stop_timer()
        self.state = state
        if state not in (State.BACKOFF, State.FATAL):
            self.retry_at = None
        self._leave_ready(self._clock())
        if state is not State.READY:
            self.ready_at = None
        self._actions.changed()

    def _leave_ready(self, now: float) -> None:
        """Notes whether the child was ready long enough for its deaths to be forgiven."""
        if self.ready_at is not None:
            self._was_stable = now - self.ready_at >= self._settings.stable_seconds

    def _nothing(self) -> None:
        pass

    def _spawn(self) -> None:
        self._generation += 1
        self._spawns += 1
        self._was_stable = False
        self.started_at = self._clock()
        self._enter(State.STARTING)
        self._actions.start_timer(self._settings.start_timeout_seconds, Event.START_TIMEOUT)
        self._actions.spawn(self._generation)

    def _spawn_afresh(self) -> None:
        self._forgive()
        self._spawn()

    def _forgive(self) -> None:
        self._failures = 0
        self._gave_up = False
        self._counted.clear()

    def _become_ready(self) -> None:
        assert self.started_at is not None
        self.ready_at = self._clock()
        self.start_seconds = self.ready_at - self.started_at
        self._enter(State.READY)

    def _abort_start(self) -> None:
        self.verdict = f"not ready within {self._settings.start_timeout_seconds:g} s"
        self._abort()

    def _abort(self) -> None:
        self._enter(State.ABORTING)
        self._actions.start_timer(self._settings.abort_timeout_seconds, Event.ABORT_TIMEOUT)
        self._actions.abort()

    def _kill_aborted(self) -> None:
        self._actions.kill()

    def _kill_and_rest(self) -> None:
        self._end(_AfterStop.REST, self._actions.kill)

    def _kill_and_spawn(self) -> None:
        self._end(_AfterStop.SPAWN, self._actions.kill)

    def _stop(self) -> None:
        self._end(_AfterStop.REST, self._actions.terminate)

    def _stop_and_spawn(self) -> None:
        self._end(_AfterStop.SPAWN, self._actions.terminate)

    def _end(self, then: _AfterStop, action: Callable[[], None]) -> None:
        self._after_stop = then
        self._enter(State.STOPPING)
        self._actions.start_timer(self._settings.stop_timeout_seconds, Event.STOP_TIMEOUT)
        action()

    def _kill(self) -> None:
        self.verdict = (
            self.verdict or f"killed: did not stop within {self._settings.stop_timeout_seconds:g} s"
        )
        self._actions.kill()

    def _stay_stopped(self) -> None:
        self._after_stop = _AfterStop.REST

    def _spawn_after_stop(self) -> None:
        self._after_stop = _AfterStop.SPAWN

    def _finish_stop(self) -> None:
        if self._after_stop is _AfterStop.REST:
            self._rest()
        else:
            self._spawn_afresh()

    def _rest(self) -> None:
        self._enter(State.STOPPED)

    def _die(self) -> None:
        assert self.last_exit is not None
        now = self._clock()
        self.deaths.append((now, self.last_exit))
        self._leave_ready(now)
        if self._was_stable:
            self._forgive()
        if self.last_exit.code in PERMANENT_CODES:
            self._enter(State.FATAL)
        elif self.is_short_of_memory or self._was_stable or not self._is_crash_loop(now):
            self._back_off(now)
        else:
            self._give_up(now)

    def _is_crash_loop(self, now: float) -> bool:
        """Counts a death."""
        self._counted.append(now)
        while self._counted[0] <= now - self._settings.crash_window_seconds:
            self._counted.popleft()
        return self._gave_up or len(self._counted) >= self._settings.crash_limit

    def _give_up(self, now: float) -> None:
        self._gave_up = True
        delay = self._settings.give_up_retry_seconds
        self.retry_at = now + delay
        self._enter(State.FATAL)
        self._actions.start_timer(delay, Event.BACKOFF_ELAPSED)

    def _back_off(self, now: float) -> None:
        delay = self._backoff_seconds()
        self._failures += 1
        self.retry_at = now + delay
        self._enter(State.BACKOFF)
        self._actions.start_timer(delay, Event.BACKOFF_ELAPSED)

    def _backoff_seconds(self) -> float:
        """initial * 2^failures, capped, spread by 20 % so that children do not move in step."""
        # 2^60 is past any cap; without the bound the power would grow for ever.
        doubled = self._settings.backoff_initial_seconds * 2 ** min(self._failures, 60)
        capped = min(doubled, self._settings.backoff_max_seconds)
        return float(capped * (1 - JITTER + 2 * JITTER * self._random()))


_TABLE: Final[Mapping[tuple[State, Event], Callable[[Supervisor], None]]] = {
    (State.STOPPED, Event.SPAWN): Supervisor._spawn,
    (State.STOPPED, Event.RESTART): Supervisor._spawn_afresh,
    (State.STOPPED, Event.STOP): Supervisor._nothing,
    (State.STARTING, Event.READY): Supervisor._become_ready,
    (State.STARTING, Event.EXITED): Supervisor._die,
    (State.STARTING, Event.START_TIMEOUT): Supervisor._abort_start,
    (State.STARTING, Event.RESTART): Supervisor._stop_and_spawn,
    (State.STARTING, Event.STOP): Supervisor._stop,
    (State.READY, Event.EXITED): Supervisor._die,
    (State.READY, Event.STALLED): Supervisor._abort,
    (State.READY, Event.RESTART): Supervisor._stop_and_spawn,
    (State.READY, Event.STOP): Supervisor._stop,
    # The notice was sent before the stop began.
    (State.STOPPING, Event.READY): Supervisor._nothing,
    (State.STOPPING, Event.EXITED): Supervisor._finish_stop,
    (State.STOPPING, Event.STOP_TIMEOUT): Supervisor._kill,
    (State.STOPPING, Event.RESTART): Supervisor._spawn_after_stop,
    (State.STOPPING, Event.STOP): Supervisor._stay_stopped,
    # The notice was sent before the start took too long.
    (State.ABORTING, Event.READY): Supervisor._nothing,
    (State.ABORTING, Event.EXITED): Supervisor._die,
    (State.ABORTING, Event.ABORT_TIMEOUT): Supervisor._kill_aborted,
    (State.ABORTING, Event.RESTART): Supervisor._kill_and_spawn,
    (State.ABORTING, Event.STOP): Supervisor._kill_and_rest,
    (State.BACKOFF, Event.BACKOFF_ELAPSED): Supervisor._spawn,
    (State.BACKOFF, Event.RESTART): Supervisor._spawn_afresh,
    (State.BACKOFF, Event.STOP): Supervisor._rest,
    (State.FATAL, Event.BACKOFF_ELAPSED): Supervisor._spawn,
    (State.FATAL, Event.RESTART): Supervisor._spawn_afresh,
    (State.FATAL, Event.STOP): Supervisor._rest,
}
