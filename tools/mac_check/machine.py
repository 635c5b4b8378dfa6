"""The machine: chip, versions, memory by every source, and what a Mac may put in the way."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from tools.mac_check.report import Row

# Runs a command and returns what it prints, or None when it cannot run here.
Reader = Callable[[Sequence[str]], str | None]
PACKAGES: Final = ("anyclaude", "mlx", "mlx-metal", "mlx-lm", "llguidance", "grpcio", "uvloop")
DEFAULT_PORT: Final = 49152
_SECONDS: Final = 30
_PAGE_SIZE = re.compile(r"page size of (\d+) bytes")
_PAGES = re.compile(r'^"?([^":]+)"?:\s+(\d+)\.', re.MULTILINE)
_NOT_PAGES: Final = ("Translation faults", "copy-on-write", "zero filled", "reactivated", "purged")


def read(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe(run: Reader = read) -> list[Row]:
    """Chip, system and versions."""
    rows: list[Row] = [
        ("chip", chip(run)),
        ("machine type", platform.machine()),
        ("system", system()),
        ("memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("processor cores", psutil.cpu_count() or 0),
        ("Python", f"{platform.python_version()} ({platform.python_compiler()})"),
        ("Python under Rosetta", run(["sysctl", "-n", "sysctl.proc_translated"]) == "1"),
    ]
    rows += [(name, version(name)) for name in PACKAGES]
    rows.append(("commit", run(["git", "rev-parse", "--short", "HEAD"]) or "not a git checkout"))
    return rows


def chip(run: Reader) -> str:
    if sys.platform == "darwin":
        return run(["sysctl", "-n", "machdep.cpu.brand_string"]) or "unknown"
    found = re.search(r"model name\s*:\s*(.+)", run(["cat", "/proc/cpuinfo"]) or "")
    return found[1] if found else platform.processor() or "unknown"


def system() -> str:
    mac = platform.mac_ver()[0]
    return f"macOS {mac}" if mac else f"{platform.system()} {platform.release()}"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def memory_rows(run: Reader = read) -> list[Row]:
    """The machine's memory in bytes: psutil's figures, then those of the system's own command."""
    counted = psutil.virtual_memory()._asdict()
    rows: list[Row] = [
        (f"psutil {name}", value) for name, value in counted.items() if name != "percent"
    ]
    if sys.platform == "darwin":
        vm_stat = parse_vm_stat(run(["vm_stat"]) or "")
        return rows + [(f"vm_stat {name}", value) for name, value in vm_stat.items()]
    meminfo = run(["cat", "/proc/meminfo"]) or ""
    found = re.findall(r"^(MemFree|MemAvailable|Cached|AnonPages):\s+(\d+) kB", meminfo, re.M)
    return rows + [(f"meminfo {name}", int(kilobytes) * 1024) for name, kilobytes in found]


def parse_vm_stat(text: str) -> dict[str, int]:
    """The amounts of memory that `vm_stat` prints, in bytes; its event counters are left out."""
    size = _PAGE_SIZE.search(text)
    if size is None:
        return {}
    return {
        name: int(pages) * int(size[1])
        for name, pages in _PAGES.findall(text)
        if name.startswith(("Pages", "File-backed", "Anonymous")) and not name.endswith(_NOT_PAGES)
    }


def surroundings(run: Reader = read) -> list[Row]:
    """What macOS may put in the way of a service; each answer is a fact, not a verdict."""
    rows: list[Row] = [
        ("`claude` on this shell's PATH", shutil.which("claude") or "not found"),
        ("Low Power Mode", low_power(run(["pmset", "-g"]))),
        (f"owner of TCP port {DEFAULT_PORT}", port_owner(run)),
        ("checkout in a protected folder", is_protected(Path.cwd(), Path.home())),
        ("quarantined files in `.venv`", quarantined(run)),
    ]
    if sys.platform == "darwin":
        uid = os.getuid()
        has_gui = run(["launchctl", "print", f"gui/{uid}"]) is not None
        rows += [
            ("launchd's own PATH", run(["launchctl", "getenv", "PATH"]) or "not set"),
            ("launchd domain of the desktop session", "present" if has_gui else "missing"),
            ("launchd session type", run(["launchctl", "managername"]) or "unknown"),
        ]
    return rows


def low_power(settings: str | None) -> str:
    found = re.search(r"lowpowermode\s+(\d)", settings or "")
    return {"0": "off", "1": "on"}.get(found[1], "unknown") if found else "unknown"


def port_owner(run: Reader) -> str:
    """The name of the program that listens on the service's default port."""
    listing = run(["lsof", "-nP", f"-iTCP:{DEFAULT_PORT}", "-sTCP:LISTEN", "-Fc"])
    names = re.findall(r"^c(.+)$", listing or "", re.MULTILINE)
    return ", ".join(dict.fromkeys(names)) or "nobody, as far as this user can see"


def is_protected(folder: Path, home: Path) -> bool:
    """Whether macOS asks before a background process may read the folder."""
    protected = (home / "Desktop", home / "Documents", home / "Downloads")
    return any(folder.is_relative_to(one) for one in protected)


def quarantined(run: Reader) -> str:
    """How many installed files carry the mark that makes Gatekeeper check them."""
    listing = run(["xattr", "-r", "-l", ".venv"])
    if listing is None:
        return "unknown: `xattr` is not available"
    return str(listing.count("com.apple.quarantine"))
