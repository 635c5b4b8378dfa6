"""One timer for many waits, on a loop whose clock the test turns."""

import asyncio
from collections.abc import Callable

import pytest

from anyclaude.runtime.alarm import Alarm


class Loop(asyncio.SelectorEventLoop):
    """Its time moves only when it is told to."""

    seconds = 0.0

    def time(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Lets what is due by then run."""
        self.seconds += seconds
        # A timer that is due is made ready in one turn and may set another one.
        for _ in range(3):
            self.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def rung() -> list[float]:
    return []


@pytest.fixture
def alarm(loop, rung) -> Alarm:
    async def made() -> Alarm:
        return Alarm(lambda: rung.append(loop.time()))

    return loop.run_until_complete(made())


Advance = Callable[[float], None]


def test_a_wait_that_lasts_too_long(alarm, loop, rung):
    """It rings once."""
    alarm.begin(10)
    loop.advance(9)
    assert rung == []
    loop.advance(2)
    loop.advance(100)
    assert rung == [11]


def test_waits_that_end_in_time(alarm, loop, rung):
    """However long they last together, and however long the pauses between them."""
    for _ in range(5):
        alarm.begin(10)
        loop.advance(6)
        alarm.end()
        loop.advance(20)
    assert rung == []


def test_a_wait_is_limited_by_itself(alarm, loop, rung):
    """Not by what an earlier one left of the timer."""
    alarm.begin(10)
    loop.advance(8)
    alarm.end()
    alarm.begin(10)
    loop.advance(8)
    assert rung == []
    loop.advance(3)
    assert rung == [19]


def test_a_shorter_limit_counts_at_once(alarm, loop, rung):
    alarm.begin(600)
    alarm.end()
    alarm.begin(1)
    loop.advance(2)
    assert rung == [2]


def test_none_rings_after_the_last_wait(alarm, loop, rung):
    alarm.begin(10)
    alarm.close()
    loop.advance(100)
    assert rung == []
