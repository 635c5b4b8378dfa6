"""Streams that mix what servers do are read as they are meant, however they are cut."""

import pytest

from tests.unit.relay.generated_streams import run

PARTS = 5


@pytest.mark.parametrize("part", range(PARTS))
def test_generated_streams(part):
    """Of 500 streams each gives the same message whole and cut, and no call is lost or doubled.

    A stream that breaks off before its end, or ends in a failure, is an error.
    """
    figures, kinds = run(100, seed=part + 1)
    assert figures["streams"] == 100
    assert figures["failures reported"] > 0
    assert figures["broken off, reported as an error"] > 50
    assert len(kinds) > 30
