"""Memory of the machine: how much there is, what the caches may use of it, and when it runs short.

`Machine` reads it from the platform. macOS: `vm_stat` for the available memory, the kernel's
pressure level (the one that Activity Monitor colours), and the physical footprint, which counts
compressed and GPU memory as the kernel's own limits do. Linux: the kernel's estimate of available
memory, pressure stall information, and resident bytes. On platforms without these, the pressure is
normal.
"""

import ctypes
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Final

import psutil
import structlog

import mlx.core as mx
from anyclaude.messages.errors import ApiError, overloaded

log = structlog.get_logger(__name__)

MIN_LIMIT_BYTES: Final = 512 * 1024**2
# Shares of memory that model and caches may use: on Linux they share it with everything else; on
# macOS the working set that Metal recommends already leaves the system its part.
_LINUX_SHARE: Final = 0.5
_MACOS_SHARE: Final = 0.9
# `sys/event.h` of macOS: normal, warn, critical.
_MACOS_WARN: Final = 2
_MACOS_CRITICAL: Final = 4
# `sys/resource.h` of macOS: RUSAGE_INFO_V0, and the offset of ri_phys_footprint.
_RUSAGE_INFO_V0: Final = 0
_RUSAGE_BYTES: Final = 96
_FOOTPRINT_AT: Final = 72
# How long a client waits before it sends a request again that did not fit.
_RETRY_AFTER_SECONDS: Final = 10
_VM_STAT: Final = "/usr/bin/vm_stat"
_VM_STAT_SECONDS: Final = 5.0
_LINUX_PSI: Final = Path("/proc/pressure/memory")
# Per cent of the last ten seconds in which some or all processes waited for memory.
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
        """Bytes that programs can allocate before others are swapped out."""
        if sys.platform == "darwin":
            return _macos_available()
        return int(psutil.virtual_memory().available)

    def total_bytes(self) -> int:
        return int(psutil.virtual_memory().total)

    def pressure(self) -> Pressure:
        return _macos_pressure() if sys.platform == "darwin" else linux_pressure(_LINUX_PSI)

    def footprint_bytes(self) -> int:
        """The memory that this process uses."""
        if sys.platform == "darwin":
            return _macos_footprint()
        return int(psutil.Process().memory_info().rss)


def default_cache_limit(weights_bytes: int) -> int:
    """Bytes for KV caches when the settings give no limit."""
    return max(MIN_LIMIT_BYTES, _usable_bytes() - weights_bytes)


def working_set_bytes() -> int:
    """Bytes that Metal recommends as the most for one process; 0 without Metal."""
    if not mx.metal.is_available():
        return 0
    return int(mx.device_info().get("max_recommended_working_set_size", 0))


def wire(limit_bytes: int) -> None:
    """Keeps up to `limit_bytes` of MLX's arrays resident; 0 leaves MLX's default, which is none.

    It is called once, before the model is loaded: changing the limit while requests come and go is
    what reports of kernel panics have in common (ml-explore/mlx#3186).

    Raises:
        ValueError: Metal does not allow as many.
    """
    if not limit_bytes:
        return
    recommended = working_set_bytes()
    if not recommended:
        log.info("mlx.wired_limit_bytes has no effect without Metal")
        return
    if limit_bytes > recommended:
        raise ValueError(
            f"mlx.wired_limit_bytes = {limit_bytes} is more than this machine allows: at most "
            f"{recommended}, the working set that Metal recommends. Set a smaller one, or 0."
        )
    mx.set_wired_limit(limit_bytes)


class TooLargeError(Exception):
    """The model never fits into this machine's memory; the message has the numbers."""


class ShortOfMemoryError(Exception):
    """Other programs use the memory that the model needs; the message has the numbers."""


def check_weights(folder: Path, machine: Machine, reserve_bytes: int) -> None:
    """Refuses a model that does not fit: loading it would bring the machine to a halt.

    Raises:
        TooLargeError: it would not fit if nothing else ran.
        ShortOfMemoryError: it does not fit now.
    """
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    total, available = machine.total_bytes(), machine.available_bytes()
    takes = f"The model in {folder} takes {weights / 1e9:.1f} GB of memory"
    reserve = f"{reserve_bytes / 1e9:.1f} GB of them stay free: mlx.memory_reserve_bytes"
    otherwise = (
        "a smaller model fits, or answer elsewhere: `anyclaudectl mode lmstudio`. "
        "mlx.memory_check = false loads it all the same."
    )
    if weights + reserve_bytes > total:
        raise TooLargeError(
            f"{takes}, and this machine has {total / 1e9:.1f} GB ({reserve}): {otherwise}"
        )
    if weights + reserve_bytes > available:
        raise ShortOfMemoryError(
            f"{takes}, and {available / 1e9:.1f} GB are available ({reserve}). It is loaded as "
            f"soon as it fits. Close other programs; {otherwise}"
        )


class Preflight:
    """Checks before a request starts that the machine has the memory that it needs.

    The caches' limit is a setting; this checks the memory that is really free. Running requests
    have claimed theirs, so two prefills never count on the same bytes.
    """

    def __init__(self, machine: Machine, reserve_bytes: int, weights_bytes: int = 0) -> None:
        """Keeps `reserve_bytes` free for everything else, and a prefill's intermediate results."""
        self._machine = machine
        self._reserve_bytes = reserve_bytes
        self._weights_bytes = weights_bytes
        # Requests that did not fit, since the start.
        self.refused = 0

    def missing_bytes(self, needed_bytes: int) -> int:
        """Bytes that are missing for the request; 0 if it fits."""
        return max(0, needed_bytes - self._free_bytes())

    def refusal(self, needed_bytes: int) -> ApiError:
        """The error for a request that does not fit.

        Clients send it again where other programs use the memory now. They do not where it would
        not fit beside the model alone, which nothing but a person can change.
        """
        self.refused += 1
        most = max(0, self._machine.total_bytes() - self._weights_bytes - self._reserve_bytes)
        needs = f"There is not enough memory for this request: it needs {_gigabytes(needed_bytes)}"
        reserve = f"the {_gigabytes(self._reserve_bytes)} of mlx.memory_reserve_bytes"
        less = "A smaller model or cache.kv_bits = 8 needs less"
        if needed_bytes > most:
            return ApiError(
                500,
                f"{needs}, and this machine has {_gigabytes(most)} beside the model and {reserve}. "
                f"Answer elsewhere: `anyclaudectl mode lmstudio`. {less}; "
                "mlx.memory_check = false tries it all the same.",
                should_retry=False,
            )
        free = max(0, self._free_bytes())
        return overloaded(
            f"{needs}, and {_gigabytes(free)} are available beside {reserve}, because other "
            "programs use the rest. Close some of them, or answer elsewhere: "
            f"`anyclaudectl mode lmstudio`. {less}.",
            _RETRY_AFTER_SECONDS,
        )

    def _free_bytes(self) -> int:
        # MLX allocates from its pool first.
        return self._machine.available_bytes() + mx.get_cache_memory() - self._reserve_bytes


class PressureWatch:
    """Polls the kernel's memory pressure on a thread of its own, and evicts caches under pressure.

    When the level rises, idle KV caches are evicted to disk: the oldest part at a warning, all of
    them when it is critical. A level that stays the same evicts nothing more.
    """

    def __init__(
        self, machine: Machine, interval_seconds: float, relieve: Callable[[Pressure], None]
    ) -> None:
        """`relieve` is called when the level rises, on the watch's thread."""
        self.level = Pressure.NORMAL
        self._machine = machine
        self._interval_seconds = interval_seconds
        self._relieve = relieve

    def start(self) -> None:
        threading.Thread(target=self._watch, name="pressure", daemon=True).start()

    def check(self) -> None:
        before, self.level = self.level, self._machine.pressure()
        if self.level > before:
            log.warning("the machine is short of memory", pressure=self.level.name.lower())
            self._relieve(self.level)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._interval_seconds):
            self.check()


def linux_pressure(file: Path) -> Pressure:
    """Reads pressure stall information: `some avg10=1.23 avg60=...` and the same for `full`."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        # The kernel does not report pressure.
        return Pressure.NORMAL
    shares = {line.split()[0]: float(line.split()[1].partition("=")[2]) for line in lines if line}
    if shares.get("full", 0.0) >= _LINUX_CRITICAL_FULL:
        return Pressure.CRITICAL
    return Pressure.WARN if shares.get("some", 0.0) >= _LINUX_WARN_SOME else Pressure.NORMAL


def macos_available(vm_stat: str, total_bytes: int) -> int:
    """Computes available bytes from the output of `vm_stat`, as Activity Monitor does.

    Wired pages, anonymous pages that cannot be purged, and the compressor's pages are in use; file
    caches are not. psutil counts the inactive queue instead, which holds anonymous pages as well as
    file caches, and is wrong by gigabytes.

    Raises:
        ValueError: a line is missing.
    """
    page = re.search(r"page size of (\d+) bytes", vm_stat)
    pages = {name: int(count) for name, count in re.findall(r"^(.+?):\s+(\d+)\.?$", vm_stat, re.M)}
    try:
        anonymous = max(0, pages["Anonymous pages"] - pages["Pages purgeable"])
        used = pages["Pages wired down"] + anonymous + pages["Pages occupied by compressor"]
    except KeyError as missing:
        raise ValueError(f"vm_stat has no line {missing}") from None
    if page is None:
        raise ValueError("vm_stat does not print its page size")
    return max(0, total_bytes - used * int(page[1]))


def macos_level(level: int) -> Pressure:
    """Translates the kernel's number."""
    if level >= _MACOS_CRITICAL:
        return Pressure.CRITICAL
    return Pressure.WARN if level >= _MACOS_WARN else Pressure.NORMAL


def _macos_available() -> int:
    memory = psutil.virtual_memory()
    try:
        # An absolute path and inherited descriptors let Python spawn without a fork, which takes
        # long in a process with a model in memory.
        done = subprocess.run(
            [_VM_STAT],
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
            check=True,
            timeout=_VM_STAT_SECONDS,
        )
        return macos_available(done.stdout, int(memory.total))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning("vm_stat cannot be used", why=str(error))
        return int(memory.available)


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


def _usable_bytes() -> int:
    if recommended := working_set_bytes():
        return int(recommended * _MACOS_SHARE)
    return int(psutil.virtual_memory().total * _LINUX_SHARE)


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"
