"""Whether the machine runs on its battery."""

from types import SimpleNamespace
from typing import Any

import pytest

from anyclaude.mlx.power import on_battery


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        (None, False),
        (SimpleNamespace(power_plugged=True), False),
        (SimpleNamespace(power_plugged=None), False),
        (SimpleNamespace(power_plugged=False), True),
        (OSError("the battery does not answer"), False),
        (RuntimeError("no power supply class"), False),
    ],
    ids=["none", "mains", "unknown", "battery", "unreadable", "unsupported"],
)
def test_only_a_known_battery_counts(battery: Any, expected: bool) -> None:
    """What the platform does not say counts as mains power."""

    def read() -> Any:
        if isinstance(battery, Exception):
            raise battery
        return battery

    assert on_battery(read) is expected


def test_this_machine_says_something() -> None:
    """The real reading never fails."""
    assert on_battery() in (True, False)
