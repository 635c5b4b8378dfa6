"""What is read from each platform, as far as it can be tested here."""

import sys
from pathlib import Path

import psutil
import pytest

from anyclaude.mlx.memory import Machine, Pressure, linux_pressure, macos_level

_PSI = """some avg10={some} avg60=0.00 avg300=0.00 total=12345
full avg10={full} avg60=0.00 avg300=0.00 total=1234
"""


@pytest.mark.parametrize(
    ("some", "full", "level"),
    [
        ("0.00", "0.00", Pressure.NORMAL),
        ("9.99", "2.00", Pressure.NORMAL),
        ("10.00", "2.00", Pressure.WARN),
        ("35.10", "10.50", Pressure.CRITICAL),
    ],
)
def test_pressure_of_linux(some: str, full: str, level: Pressure, tmp_path: Path) -> None:
    """Linux's shares of lost time become a level."""
    file = tmp_path / "memory"
    file.write_text(_PSI.format(some=some, full=full))

    assert linux_pressure(file) is level


def test_a_kernel_without_pressure_is_at_ease(tmp_path: Path) -> None:
    """A kernel without pressure information counts as normal."""
    assert linux_pressure(tmp_path / "missing") is Pressure.NORMAL


@pytest.mark.parametrize(
    ("told", "level"), [(1, Pressure.NORMAL), (2, Pressure.WARN), (4, Pressure.CRITICAL)]
)
def test_pressure_of_macos(told: int, level: Pressure) -> None:
    """macOS's numbers, which are powers of two, become levels."""
    assert macos_level(told) is level


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux' own figure")
def test_the_machine_at_hand() -> None:
    """This machine's figures are plausible, and its level can be read."""
    machine = Machine()

    assert 0 < machine.available_bytes() <= psutil.virtual_memory().total
    assert machine.footprint_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert machine.pressure() in Pressure
