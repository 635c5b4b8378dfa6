"""Every test runs on either loop: the relay's is uvloop, whose transports are its own."""

import pytest

from tests.unit.relay.http.server import LOOPS, Staging


@pytest.fixture(params=LOOPS)
def staged(request) -> Staging:
    return Staging(LOOPS[request.param])
