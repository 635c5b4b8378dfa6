"""A timeout that outlives the sleep of the machine.

uvloop's clock counts the time that a Mac sleeps. When the Mac wakes, every timer has run out, and
an answer that the other side sends then would come too late. So a timer that rings much later than
it was due is armed once more for its whole duration.
"""

import asyncio
from typing import Any, Final, Self

# A loop that works rings its timers within milliseconds.
LATE_SECONDS: Final = 5.0


class Timeout:
    """`asyncio.timeout`, armed again once where its timer rings late. The loop's clock is used."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit = asyncio.timeout(None)
        self._was_late = False

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._arm()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        """Raises TimeoutError in place of the cancellation that the passed time caused."""
        self._timer.cancel()
        await self._limit.__aexit__(*raised)

    def restart(self, seconds: float) -> None:
        """Counts `seconds` from now on."""
        self._timer.cancel()
        self._seconds = seconds
        self._arm()

    def _arm(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        if now - self._due > LATE_SECONDS and not self._was_late:
            self._was_late = True
            self._arm()
        else:
            self._limit.reschedule(now)
