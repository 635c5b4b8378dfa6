"""A circuit breaker: after enough failures in a row, requests are refused at once for a while.

    CLOSED    --failures in a row reach the limit-->  OPEN
    OPEN      --the wait is over----------------->    HALF_OPEN, which lets one request through
    HALF_OPEN --it succeeds-->                        CLOSED
    HALF_OPEN --it fails----->                        OPEN
    HALF_OPEN --it ends undecided (cancelled)-->      HALF_OPEN, which lets the next one through

Only failures of the server count (unreachable, silent, broken), not refused requests.
"""

from collections.abc import Callable
from enum import Enum, auto


class State(Enum):
    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class BreakerOpenError(Exception):
    """No request may be sent for another `wait_seconds`."""

    def __init__(self, wait_seconds: float) -> None:
        super().__init__(f"refused for another {wait_seconds:.1f} s")
        self.wait_seconds = wait_seconds


class Breaker:
    def __init__(self, failures: int, open_seconds: float, clock: Callable[[], float]) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        # Failures in a row.
        self.failures = 0
        # When it opened last; None while closed.
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        if self._opened_at is None:
            return State.CLOSED
        return State.OPEN if self._wait_seconds(self._opened_at) > 0 else State.HALF_OPEN

    def enter(self) -> None:
        """Call before each request; `succeeded`, `failed` or `undecided` must follow.

        Raises:
            BreakerOpenError
        """
        if self._opened_at is None:
            return
        wait = self._wait_seconds(self._opened_at)
        if wait > 0:
            raise BreakerOpenError(wait)
        if self._trying:
            # One request tests the server; until it ends, the server counts as down.
            raise BreakerOpenError(1.0)
        self._trying = True

    def succeeded(self) -> None:
        """The server responded, even if it refused the request."""
        self.failures, self._opened_at, self._trying = 0, None, False

    def answering(self) -> None:
        """The server has begun to respond: others may try, but one failure opens it again."""
        if self._opened_at is not None:
            self.failures, self._opened_at, self._trying = self._limit - 1, None, False

    def failed(self) -> None:
        self.failures += 1
        self._trying = False
        if self._opened_at is not None or self.failures >= self._limit:
            self._opened_at = self._clock()

    def undecided(self) -> None:
        """The request ended before it was clear whether the server works."""
        self._trying = False

    def _wait_seconds(self, opened_at: float) -> float:
        return opened_at + self._open_seconds - self._clock()
