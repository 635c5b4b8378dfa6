"""Fixtures of the tests of a whole service."""

from collections.abc import Iterator

import pytest

from tests.integration.service import Service


@pytest.fixture(scope="session")
def demo() -> Iterator[Service]:
    """The service without any configuration, shared by tests that leave it unchanged.

    Tests share it, since starting a service takes about six seconds of CPU time. Each test uses
    sessions and instructions of its own.
    """
    with Service() as service:
        yield service.ready()
