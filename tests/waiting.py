"""Waiting for a condition inside an event loop, with a deadline."""

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.01
_STILL_SECONDS = 0.2


async def until(holds: Callable[[], object]) -> None:
    """Returns once `holds()` is true; fails after `PATIENCE_SECONDS`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 - the condition has no event to wait for
            await asyncio.sleep(_POLL_SECONDS)


async def until_still(value: Callable[[], int]) -> int:
    """Returns the value once it has not changed for a while; fails if it keeps changing."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            before = value()
            await asyncio.sleep(_STILL_SECONDS)
            if value() == before:
                return before
