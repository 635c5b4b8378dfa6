"""When a client that is refused because everything is full should send its request again.

Requests end at a rate that is measured: as many as run at a time, each for the time that the latest
ones took. The first client that is refused is told when the next request ends, the second when two
have ended, and so on. So they do not all come back for the same place.
"""

import math
from typing import Final

# A longer retry-after makes Claude Code give up at once.
MAX_RETRY_AFTER_SECONDS: Final = 60
# How much each request counts in the mean.
_WEIGHT: Final = 0.2
_FIRST_GUESS_SECONDS: Final = 5.0


class Turnover:
    """How long requests take, and how many clients wait to send theirs again."""

    def __init__(self) -> None:
        self._mean_seconds = _FIRST_GUESS_SECONDS
        self._refused = 0

    def ended(self, seconds: float) -> None:
        """A request that took so long has made place for another."""
        self._mean_seconds += _WEIGHT * (seconds - self._mean_seconds)
        self._refused = max(0, self._refused - 1)

    def retry_after_seconds(self, running: int) -> int:
        """The answer for one more client, while so many requests run."""
        self._refused += 1
        seconds = math.ceil(self._mean_seconds * self._refused / max(1, running))
        return min(max(1, seconds), MAX_RETRY_AFTER_SECONDS)
