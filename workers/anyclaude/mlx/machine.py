"""What the machine says of its memory: the seam between the policy and each platform.

macOS: the kernel's pressure level (`kern.memorystatus_vm_pressure_level`, what Activity Monitor
colours), and the physical footprint, which counts compressed and GPU memory as the kernel's own
limits do. Linux: pressure stall information, and resident bytes. What cannot be asked is normal.
"""

import ctypes
import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import Final

import psutil

# `sys/event.h` of macOS: normal, warn, critical.
_MACOS_WARN: Final = 2
_MACOS_CRITICAL: Final = 4
# `sys/resource.h` of macOS: RUSAGE_INFO_V0, and where in it ri_phys_footprint stands.
_RUSAGE_INFO_V0: Final = 0
_RUSAGE_BYTES: Final = 96
_FOOTPRINT_AT: Final = 72
_LINUX_PSI: Final = Path("/proc/pressure/memory")
# Per cent of the last ten seconds in which some, or all, processes waited for memory.
_LINUX_WARN_SOME: Final = 10.0
_LINUX_CRITICAL_FULL: Final = 10.0


class Pressure(IntEnum):
    NORMAL = 0
    # Others begin to be compressed or swapped out.
    WARN = 1
    # The system is about to end processes.
    CRITICAL = 2


class Machine:
    """This machine."""

    def available_bytes(self) -> int:
        """What programs could take before others are swapped out."""
        return int(psutil.virtual_memory().available)

    def pressure(self) -> Pressure:
        return _macos_pressure() if sys.platform == "darwin" else linux_pressure(_LINUX_PSI)

    def footprint_bytes(self) -> int:
        """What this process takes of it."""
        if sys.platform == "darwin":
            return _macos_footprint()
        return int(psutil.Process().memory_info().rss)


def linux_pressure(file: Path) -> Pressure:
    """Reads pressure stall information: `some avg10=1.23 avg60=...` and the same for `full`."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        # Kernels without it.
        return Pressure.NORMAL
    shares = {line.split()[0]: float(line.split()[1].partition("=")[2]) for line in lines if line}
    if shares.get("full", 0.0) >= _LINUX_CRITICAL_FULL:
        return Pressure.CRITICAL
    return Pressure.WARN if shares.get("some", 0.0) >= _LINUX_WARN_SOME else Pressure.NORMAL


def macos_level(level: int) -> Pressure:
    """The kernel's number."""
    if level >= _MACOS_CRITICAL:
        return Pressure.CRITICAL
    return Pressure.WARN if level >= _MACOS_WARN else Pressure.NORMAL


def _macos_pressure() -> Pressure:
    level, size = ctypes.c_int(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    ask = ctypes.CDLL(None).sysctlbyname
    name = b"kern.memorystatus_vm_pressure_level"
    failed = ask(name, ctypes.byref(level), ctypes.byref(size), None, ctypes.c_size_t(0))
    return Pressure.NORMAL if failed else macos_level(level.value)


def _macos_footprint() -> int:
    usage = ctypes.create_string_buffer(_RUSAGE_BYTES)
    failed = ctypes.CDLL(None).proc_pid_rusage(os.getpid(), _RUSAGE_INFO_V0, usage)
    if failed:
        return int(psutil.Process().memory_info().rss)
    return int.from_bytes(usage.raw[_FOOTPRINT_AT : _FOOTPRINT_AT + 8], sys.byteorder)
