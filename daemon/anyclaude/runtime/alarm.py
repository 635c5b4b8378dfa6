"""A limit on each of many waits in a row, by one timer.

The timer is set anew only when it rings: a timer, or a timeout, of its own for each wait took a
tenth of the time of each word of an answer.
"""

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `on_ring` when a wait lasts too long."""

    def __init__(self, on_ring: Callable[[], None]) -> None:
        self._on_ring = on_ring
        self._loop = asyncio.get_running_loop()
        # On the loop's clock; None between waits.
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> None:
        """A wait begins."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._set(self._deadline)

    def end(self) -> None:
        """It is over in time."""
        self._deadline = None

    def close(self) -> None:
        """No other follows."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._set(self._deadline)
            return
        self._deadline = None
        self._on_ring()
