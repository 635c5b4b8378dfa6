"""Fixtures of the tests of a whole service."""

from collections.abc import Iterator

import pytest

from tests.integration.service import Service


@pytest.fixture(scope="session")
def demo() -> Iterator[Service]:
    """The service as it is without any configuration, for tests that leave it as it was.

    Tests share it, since starting a service takes about six seconds of CPU time. Each test uses
    sessions and instructions of its own.
    """
    with Service() as service:
        yield service.ready()
