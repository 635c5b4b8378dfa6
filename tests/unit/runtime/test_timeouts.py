"""The timeout that outlives the sleep of the machine, on a clock that jumps."""

import asyncio

import pytest

from anyclaude.runtime.timeouts import Timeout
from tests.jumping_loop import JumpingLoop, run


def test_what_comes_after_a_sleep_is_in_time() -> None:
    """After a jump of an hour, a result that comes a moment later is in time."""

    async def work(loop: JumpingLoop) -> None:
        answer: asyncio.Future[str] = loop.create_future()

        async def wait() -> str:
            async with Timeout(60.0):
                return await answer

        waiting = asyncio.ensure_future(wait())
        await loop.sleep_through(3600.0)
        await asyncio.sleep(0.01)
        answer.set_result("here")
        assert await waiting == "here"

    run(work)


def test_a_second_late_ring_is_the_end() -> None:
    """After a second sleep the timeout expires, so a wait always ends."""

    async def work(loop: JumpingLoop) -> None:
        async def wait() -> None:
            async with Timeout(60.0):
                await loop.create_future()

        waiting = asyncio.ensure_future(wait())
        for _ in range(2):
            await loop.sleep_through(3600.0)
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await waiting

    run(work)


def test_a_ring_in_time_is_the_end() -> None:
    """Without a sleep it is an ordinary timeout, also after a restart."""

    async def work(_: JumpingLoop) -> None:
        async def wait(seconds: float, *, restarted: bool) -> None:
            async with Timeout(seconds) as limit:
                if restarted:
                    limit.restart(0.01)
                await asyncio.sleep(60)

        with pytest.raises(TimeoutError):
            await wait(0.01, restarted=False)
        with pytest.raises(TimeoutError):
            await wait(60.0, restarted=True)
        async with Timeout(0.01):
            pass
        await asyncio.sleep(0.02)

    run(work)
