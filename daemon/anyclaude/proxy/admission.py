"""How many requests are held at once; one more is sent away to come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from anyclaude.messages.errors import overloaded

_RETRY_AFTER_SECONDS: Final = 2


class Admission:
    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._held = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one place.

        Raises:
            ApiError: 529, all are taken.
        """
        if self._held >= self._max_requests:
            raise overloaded(
                f"{self._held} requests are in progress, the maximum (server.max_requests).",
                _RETRY_AFTER_SECONDS,
            )
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
