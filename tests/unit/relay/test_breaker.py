"""The circuit breaker's table of states."""

import pytest

from anyclaude.relay.breaker import Breaker, BreakerOpenError, State


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(3, 10.0, clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.enter()
        breaker.failed()


def test_it_opens_at_the_limit_and_not_before(breaker):
    """Two failures in a row change nothing; after the third, requests are refused."""
    fail(breaker, 2)
    assert breaker.state is State.CLOSED
    fail(breaker, 1)
    assert breaker.state is State.OPEN
    with pytest.raises(BreakerOpenError) as refused:
        breaker.enter()
    assert refused.value.wait_seconds == 10.0


def test_a_success_forgets_failures(breaker):
    """A success resets the count, so only failures in a row count."""
    fail(breaker, 2)
    breaker.enter()
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_one_request_is_sent_after_the_wait(breaker, clock):
    """In the half-open state one request is sent, and others are still refused."""
    fail(breaker, 3)
    clock.now = 10.0
    assert breaker.state is State.HALF_OPEN
    breaker.enter()
    with pytest.raises(BreakerOpenError):
        breaker.enter()


def test_the_half_open_request_decides(breaker, clock):
    """If that request fails the wait starts again; if it succeeds the breaker closes."""
    fail(breaker, 3)
    clock.now = 10.0
    fail(breaker, 1)
    assert breaker.state is State.OPEN
    clock.now = 20.0
    breaker.enter()
    breaker.succeeded()
    assert breaker.state is State.CLOSED
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_after_an_undecided_request_the_next_one_is_sent(breaker, clock):
    """A cancelled request proves nothing about the server, so the next one may test it."""
    fail(breaker, 3)
    clock.now = 10.0
    breaker.enter()
    breaker.undecided()
    breaker.enter()
    breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_a_response_that_begins_admits_others(breaker, clock):
    """Others may send requests once a response begins; if it fails, the breaker opens again."""
    fail(breaker, 3)
    clock.now = 10.0
    breaker.enter()
    breaker.answering()
    breaker.enter()
    assert breaker.state is State.CLOSED
    breaker.failed()
    assert breaker.state is State.OPEN
