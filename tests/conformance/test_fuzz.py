"""A short run of the fuzz; `make fuzz` is the long one."""

import pytest

from tests.conformance.conftest import Address
from tests.conformance.endpoint import Endpoint
from tests.conformance.fuzz import Gun, Watch
from tests.conformance.rows import Row, row

BODIES = 300
# A fixed seed, so that this test is repeatable; `make fuzz` uses random ones.
SEED = 20261121


@row(Row.ERRORS)
@pytest.mark.heavy
def test_any_body(endpoint: Endpoint, address: Address) -> None:
    """Hundreds of valid and broken bodies get a response, a 4xx or a 529 with a delay."""
    watch = Watch(address.service, BODIES) if address.service else None
    gun = Gun(endpoint.base_url, watch.look if watch else lambda _: None)
    gun.fire(BODIES, SEED)
    assert gun.tally.statuses["400"] < BODIES * 0.8
    if watch:
        watch.conclude()
