"""A few kills at random moments; `make faults` does the same with hundreds."""

from pathlib import Path

from tests.faults.disturbed import CONVERSATIONS, disturb, disturbed_service


def test_no_client_notices_killed_workers(tmp_path: Path) -> None:
    """Under kills of the worker every client gets the undisturbed answers, whole."""
    with disturbed_service(tmp_path) as service:
        result = disturb(service, "mlx", kills=6, seed=1)

    assert result.failures == []
    assert result.kills == 6
    assert result.in_flight >= CONVERSATIONS
