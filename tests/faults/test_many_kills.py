"""A few kills at random moments; `make faults` does the same with hundreds."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disturbed import CONVERSATIONS, disturb


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ac-") as folder:
        yield Path(folder)


def test_no_client_notices_killed_workers(folder: Path) -> None:
    """Under kills of the worker every client gets the undisturbed answers, whole."""
    result = disturb(folder, "mlx", kills=4, seed=1)

    assert result.failures == []
    assert result.kills == 4
    assert result.in_flight >= CONVERSATIONS
    assert result.cut == 0


def test_the_next_daemon_serves_from_the_caches_of_a_killed_one(folder: Path) -> None:
    """No child outlives the daemon, the next one starts at once and finds the caches on disk."""
    result = disturb(folder, "daemon", kills=1, seed=1)

    assert result.failures == []
    assert result.kills == 1
    assert result.reused > 0
