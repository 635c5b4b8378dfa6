"""Announces changes of the daemon's state to any number of watchers.

A slow watcher misses intermediate states, never the last one; nothing is queued for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn


class Changes:
    """A counter of changes that can be awaited."""

    def __init__(self) -> None:
        self._version = 0
        self._changed = asyncio.Event()
        self.closed = False

    @property
    def version(self) -> int:
        return self._version

    def notify(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Wakes every watcher for the last time."""
        self.closed = True
        self.notify()

    async def after(self, version: int) -> int:
        """Waits until the version is past `version`; returns it."""
        while self._version <= version:
            await self._changed.wait()
        return self._version

    async def until(self, holds: Callable[[], bool], timeout_seconds: float) -> None:
        """Waits until `holds()`, evaluated now and after every change; raises TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            version = self._version
            while not holds():
                version = await self.after(version)

    async def follow(self, step: Callable[[], Awaitable[bool]], retry_seconds: float) -> NoReturn:
        """Runs `step` now and after every change, until cancelled.

        A step that returns False is repeated after `retry_seconds`.
        """
        while True:
            version = self._version
            if await step():
                await self.after(version)
            else:
                await asyncio.sleep(retry_seconds)
