"""The memory that all request bodies share."""

import asyncio

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.proxy.body_budget import BodyBudget


def test_bodies_beyond_the_budget_wait_in_order():
    """The next body starts when enough bytes are free again, and none overtakes another."""
    order = []

    async def use(budget: BodyBudget, name: str, nbytes: int, until: asyncio.Event) -> None:
        async with budget.claim(nbytes):
            order.append(name)
            await until.wait()

    async def run() -> None:
        budget, first_done, all_done = BodyBudget(100, 60), asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(use(budget, "first", 80, first_done))
        await asyncio.sleep(0)
        others = [
            asyncio.create_task(use(budget, name, nbytes, all_done))
            for name, nbytes in (("large", 90), ("small", 10))
        ]
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["first"]
        first_done.set()
        await first
        all_done.set()
        await asyncio.gather(*others)
        assert order == ["first", "large", "small"]

    asyncio.run(run())


def test_a_small_body_does_not_wait_for_large_ones():
    """It is admitted at once although the budget is used up and a large body waits."""

    async def run() -> None:
        budget = BodyBudget(100, 60, small_bytes=10)
        async with budget.claim(100):
            waiting = asyncio.ensure_future(_use(budget, 90))
            await asyncio.sleep(0)
            await asyncio.wait_for(_use(budget, 10), 30)
            assert not waiting.done()
        await waiting
        # Nothing stays claimed.
        await asyncio.wait_for(_use(budget, 100), 30)

    async def _use(budget: BodyBudget, nbytes: int) -> None:
        async with budget.claim(nbytes):
            pass

    asyncio.run(run())


def test_what_a_body_does_not_need_is_given_back():
    """A claim for an unknown length shrinks once the body is read; nothing stays claimed."""

    async def run() -> None:
        budget = BodyBudget(100, 0.01)
        async with budget.claim(100) as claim:
            claim.shrink(10)
            async with budget.claim(90):
                pass
        async with budget.claim(100):
            pass

    asyncio.run(run())


def test_a_body_larger_than_the_budget_is_read_alone():
    """It waits until no other body is in memory, and then is accepted."""

    async def run() -> None:
        budget = BodyBudget(100, 60)
        async with budget.claim(200):
            pass

    asyncio.run(run())


def test_waiting_too_long_is_refused_and_leaves_nothing_behind():
    """The client gets 529 with retry-after, and bodies after it are still accepted."""

    async def run() -> None:
        budget = BodyBudget(100, 0.01)
        async with budget.claim(100):
            with pytest.raises(ApiError) as refused:
                async with budget.claim(50):
                    pass
            assert refused.value.status == 529
            assert refused.value.headers()["retry-after"]
        async with budget.claim(100):
            pass

    asyncio.run(run())
