"""An event loop whose clock jumps, as uvloop's does on a Mac that wakes from sleep."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop on real time plus the hours that a test adds at once."""

    def __init__(self) -> None:
        super().__init__()
        self._slept_seconds = 0.0

    def time(self) -> float:
        return super().time() + self._slept_seconds

    async def sleep_through(self, seconds: float) -> None:
        """Every timer that is due by then fires before anything else happens."""
        # Every waiting task has set its timer by now.
        for _ in range(10):
            await asyncio.sleep(0)
        self._slept_seconds += seconds


def run(work: Callable[[JumpingLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs a test on such a loop."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, JumpingLoop)
        runner.run(work(loop))
