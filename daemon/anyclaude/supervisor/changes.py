"""Waiting for the next change of the daemon's state: many watchers, none of whom can lag.

A watcher that was slow misses intermediate states, never the last one; nothing queues up.
"""

import asyncio


class Changes:
    """A counter that can be awaited."""

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
        """Lets every watcher end."""
        self.closed = True
        self.notify()

    async def after(self, version: int) -> int:
        """Waits until the version is past `version`; returns it."""
        while self._version <= version:
            await self._changed.wait()
        return self._version
