"""What is read from each platform, as far as it can be tested here."""

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from anyclaude.mlx import main, memory
from anyclaude.mlx.memory import Machine, Pressure, linux_pressure, macos_available, macos_level
from anyclaude.runtime.settings import MlxSettings, Settings

_PSI = """some avg10={some} avg60=0.00 avg300=0.00 total=12345
full avg10={full} avg60=0.00 avg300=0.00 total=1234
"""

GIB = 1024**3
PAGE = 16384

# What macOS 15 prints on three machines: at ease, with a large file cache, and under pressure.
_VM_STAT_16_GB = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                                     5120.
Pages active:                                 352000.
Pages inactive:                               340000.
Pages speculative:                              4000.
Pages throttled:                                   0.
Pages wired down:                             180000.
Pages purgeable:                                9000.
"Translation faults":                      812345678.
Pages copy-on-write:                        31234567.
Pages zero filled:                         412345678.
Pages reactivated:                          21234567.
Pages purged:                                1234567.
File-backed pages:                            246000.
Anonymous pages:                              450000.
Pages stored in compressor:                   420000.
Pages occupied by compressor:                 165000.
Decompressions:                             12345678.
Compressions:                               23456789.
Pageins:                                     9123456.
Pageouts:                                      84321.
Swapins:                                           0.
Swapouts:                                          0.
"""
_VM_STAT_48_GB = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                                   210000.
Pages active:                                 880000.
Pages inactive:                              1390000.
Pages speculative:                             30000.
Pages throttled:                                   0.
Pages wired down:                             330000.
Pages purgeable:                               25000.
"Translation faults":                     2212345678.
Pages copy-on-write:                        91234567.
Pages zero filled:                        1512345678.
Pages reactivated:                           1234567.
Pages purged:                                 934567.
File-backed pages:                           1100000.
Anonymous pages:                             1200000.
Pages stored in compressor:                   910000.
Pages occupied by compressor:                 300000.
Decompressions:                              2345678.
Compressions:                                3456789.
Pageins:                                    29123456.
Pageouts:                                      14321.
Swapins:                                           0.
Swapouts:                                          0.
"""
_VM_STAT_8_GB = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                                     3200.
Pages active:                                 118000.
Pages inactive:                               112000.
Pages speculative:                               800.
Pages throttled:                                   0.
Pages wired down:                             125000.
Pages purgeable:                                 400.
"Translation faults":                     5123456789.
Pages copy-on-write:                       131234567.
Pages zero filled:                        2412345678.
Pages reactivated:                         421234567.
Pages purged:                                9234567.
File-backed pages:                             62000.
Anonymous pages:                              168800.
Pages stored in compressor:                   512000.
Pages occupied by compressor:                 160000.
Decompressions:                            312345678.
Compressions:                              423456789.
Pageins:                                    99123456.
Pageouts:                                    1284321.
Swapins:                                    31234567.
Swapouts:                                   34567890.
"""


@pytest.mark.parametrize(
    ("vm_stat", "total_bytes", "available_pages"),
    [
        # 1,048,576 - 180,000 wired - (450,000 - 9,000) anonymous - 165,000 in the compressor.
        (_VM_STAT_16_GB, 16 * GIB, 262_576),
        # 3,145,728 - 330,000 - (1,200,000 - 25,000) - 300,000; psutil would count 1,600,000 pages.
        (_VM_STAT_48_GB, 48 * GIB, 1_340_728),
        # 524,288 - 125,000 - (168,800 - 400) - 160,000; psutil would count 115,200 pages.
        (_VM_STAT_8_GB, 8 * GIB, 70_888),
    ],
)
def test_available_memory_of_macos(vm_stat: str, total_bytes: int, available_pages: int) -> None:
    """Wired, anonymous and compressed pages are used, and file caches are available."""
    assert macos_available(vm_stat, total_bytes) == available_pages * PAGE


@pytest.mark.parametrize("line", ["Anonymous pages", "Pages wired down", "page size of"])
def test_an_unknown_vm_stat_is_no_figure(line: str) -> None:
    """A line that is missing is an error, never a count of zero."""
    text = "\n".join(part for part in _VM_STAT_8_GB.splitlines() if line not in part)
    with pytest.raises(ValueError, match="vm_stat"):
        macos_available(text, 8 * GIB)


@pytest.mark.parametrize(("prints", "pages"), [(_VM_STAT_8_GB, 70_888), ("garbage", None)])
def test_a_mac_asks_vm_stat(
    prints: str, pages: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's figure comes from the program; where it prints nothing useful, from psutil."""
    text = tmp_path / "text"
    text.write_text(prints)
    program = tmp_path / "vm_stat"
    program.write_text(f"#!/bin/sh\ncat {text}\n")
    program.chmod(0o755)
    virtual = SimpleNamespace(total=8 * GIB, available=12345)
    monkeypatch.setattr(memory, "_VM_STAT", str(program))
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: virtual)
    monkeypatch.setattr(sys, "platform", "darwin")

    assert Machine().available_bytes() == (12345 if pages is None else pages * PAGE)


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


def test_a_kernel_without_pressure_counts_as_normal(tmp_path: Path) -> None:
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


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits that were set, on a machine with Metal that recommends 12 GiB."""
    limits: list[int] = []
    monkeypatch.setattr(memory.mx.metal, "is_available", lambda: True)
    info = {"max_recommended_working_set_size": 12 * GIB}
    monkeypatch.setattr(memory.mx, "device_info", lambda: info)
    monkeypatch.setattr(memory.mx, "set_wired_limit", limits.append)
    return limits


def test_the_wired_limit_is_set_once_before_the_model_is_loaded(
    wired: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading begins with the limit in force."""
    at_load: list[list[int]] = []
    monkeypatch.setattr(main, "load", lambda _: at_load.append(list(wired)))
    settings = Settings(mlx=MlxSettings(wired_limit_bytes=10 * GIB, memory_check=False))
    main._load(settings, Machine())

    assert at_load == [[10 * GIB]]


def test_no_wired_limit_is_the_default(wired: list[int]) -> None:
    """0 leaves MLX alone."""
    memory.wire(Settings().mlx.wired_limit_bytes)
    assert wired == []


def test_a_wired_limit_that_metal_does_not_allow_is_refused(wired: list[int]) -> None:
    """One byte more than the recommended working set is an error with both numbers."""
    memory.wire(12 * GIB)
    with pytest.raises(ValueError, match=f"{12 * GIB + 1} .* {12 * GIB},"):
        memory.wire(12 * GIB + 1)
    assert wired == [12 * GIB]


def test_the_wired_limit_has_no_effect_without_metal(
    wired: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same configuration works on a machine without Metal."""
    monkeypatch.setattr(memory.mx.metal, "is_available", lambda: False)
    memory.wire(10 * GIB)
    assert wired == []
    assert memory.working_set_bytes() == 0
