"""`tools/mac-check` with the real service and the demo model, as far as every system can."""

import pytest

from tools.mac_check.__main__ import main


@pytest.mark.slow(10)
def test_the_caches_of_a_real_service_are_verified(capsys: pytest.CaptureFixture[str]):
    """The section starts a service of its own, fills its caches and verifies all of them."""
    assert main(["--only", "verify"]) == 0
    report = capsys.readouterr().out
    assert "## Exactness of caches (done)" in report
    assert "| wrong (count) | 0 |" in report
