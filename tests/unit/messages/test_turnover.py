"""The retry-after of clients that are refused because everything is full."""

from anyclaude.messages.turnover import MAX_RETRY_AFTER_SECONDS, Turnover


def _measured(seconds: float) -> Turnover:
    turnover = Turnover()
    for _ in range(50):
        turnover.ended(seconds)
    return turnover


def test_each_client_is_told_when_a_place_is_free_for_it() -> None:
    """Eight requests of 32 s make a place every 4 s; each refused client waits for one more."""
    turnover = _measured(32)

    assert [turnover.retry_after_seconds(8) for _ in range(3)] == [4, 8, 12]


def test_requests_that_end_make_place() -> None:
    """Clients that were refused earlier no longer count once as many requests have ended."""
    turnover = _measured(32)
    first = [turnover.retry_after_seconds(8) for _ in range(3)]
    for _ in first:
        turnover.ended(32)

    assert turnover.retry_after_seconds(8) == first[0]


def test_it_is_bounded() -> None:
    """It is at least a second, and never so long that Claude Code gives up."""
    assert _measured(0.01).retry_after_seconds(8) == 1
    assert _measured(3600).retry_after_seconds(1) == MAX_RETRY_AFTER_SECONDS
