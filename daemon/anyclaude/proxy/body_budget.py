"""Limits the memory of all request bodies, and the time that a large one takes from others.

A body is in memory several times while it is read, checked and sent on. A body that would exceed
the budget is not read yet: its client waits, which costs no memory. Without that, ten bodies of
30 MB would need more than a gigabyte. A body that is larger than the budget is read alone.
A small body never waits: it would wait for all large ones that came before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, ParamSpec, TypeVar

from anyclaude.messages.errors import overloaded

# Work on a smaller body takes some milliseconds, about as long as handing it to a thread.
LARGE_BODY_BYTES: Final = 1024 * 1024
_RETRY_AFTER_SECONDS: Final = 5

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


async def off_loop(
    body_bytes: int, work: Callable[_P, _Result], *args: _P.args, **kwargs: _P.kwargs
) -> _Result:
    """Works on a large body on another thread, so that others are served meanwhile."""
    if body_bytes < LARGE_BODY_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


class Claim:
    """The bytes that one body may use."""

    def __init__(self, budget: "BodyBudget", nbytes: int) -> None:
        self._budget = budget
        self.nbytes = nbytes

    def shrink(self, nbytes: int) -> None:
        """Gives back what the body does not need."""
        if nbytes < self.nbytes:
            self._budget.give_back(self.nbytes - nbytes)
            self.nbytes = nbytes


class BodyBudget:
    def __init__(self, limit_bytes: int, wait_seconds: float, small_bytes: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._small_bytes = small_bytes
        self._wait_seconds = wait_seconds
        self._used_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def claim(self, nbytes: int) -> AsyncIterator[Claim]:
        """Claims bytes for a body, in order of arrival; a small body gets them at once.

        Raises:
            ApiError: 529, they did not become free in time.
        """
        await self._acquire(nbytes)
        claim = Claim(self, nbytes)
        try:
            yield claim
        finally:
            self.give_back(claim.nbytes)

    def give_back(self, nbytes: int) -> None:
        self._used_bytes -= nbytes
        self._admit()

    async def _acquire(self, nbytes: int) -> None:
        if nbytes <= self._small_bytes:
            self._used_bytes += nbytes
            return
        turn = asyncio.get_running_loop().create_future()
        waiting = nbytes, turn
        self._waiting.append(waiting)
        self._admit()
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._wait_seconds)
        except BaseException as error:
            if turn.done():
                self.give_back(nbytes)
            else:
                self._waiting.remove(waiting)
                self._admit()
            if isinstance(error, TimeoutError):
                raise overloaded(
                    "Other large requests are in progress (server.body_memory_bytes).",
                    _RETRY_AFTER_SECONDS,
                ) from None
            raise

    def _admit(self) -> None:
        while self._waiting:
            nbytes, turn = self._waiting[0]
            if self._used_bytes and self._used_bytes + nbytes > self._limit_bytes:
                return
            self._waiting.popleft()
            self._used_bytes += nbytes
            turn.set_result(None)
