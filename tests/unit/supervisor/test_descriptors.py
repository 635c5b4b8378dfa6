"""The limit of open descriptors, in a process of its own."""

import subprocess
import sys

import pytest

_RAISE = """
import resource, sys
from anyclaude.supervisor.descriptors import raise_limit
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(raise_limit(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "limit", "says"),
    [(64, 512, 256, 256, False), (64, 128, 256, 128, True), (512, 512, 256, 512, False)],
)
def test_the_limit_is_raised_as_far_as_allowed(
    soft: int, hard: int, wanted: int, limit: int, says: bool
) -> None:
    """Up to what is wanted, never lowered, and too low a hard limit is named in the log."""
    command = [sys.executable, "-c", _RAISE, str(soft), str(hard), str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, last = done.stdout.splitlines()
    assert last == f"{limit} {limit}"
    assert ("few descriptors" in done.stdout) == says
