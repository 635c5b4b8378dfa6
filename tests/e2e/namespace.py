"""A network of its own for a service and its client: loopback only, nothing else reachable.

A holder process keeps the namespace open; everything else enters it with the prefix that
`command` puts before an argument list. The prefix execs, so the process started is the program
itself and takes signals directly. Linux only.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# `cat` ends when its input does, so the namespace never outlives the test process.
_HOLD = "ip link set lo up && echo held && exec cat"
_TOOLS = ("unshare", "nsenter", "ip")
_REAP_SECONDS = 5.0


class NamespaceUnavailable(Exception):
    """This machine cannot make a network namespace; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """An open namespace, as the command prefix that enters it."""

    holder_pid: int
    prefix: tuple[str, ...]

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs `argv` inside the namespace."""
        return [*self.prefix, *argv]

    def processes(self) -> dict[int, str]:
        """Every process inside except the holder: process id to command line."""
        network = _network_of(self.holder_pid)
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        inside = [pid for pid in pids if pid != self.holder_pid and _network_of(pid) == network]
        return {pid: _command_line(pid) for pid in inside}

    def remaining_processes(self) -> dict[int, str]:
        """The processes still inside after the few seconds that ending ones may take."""
        deadline = time.monotonic() + _REAP_SECONDS
        while (remaining := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return remaining

    def kill_remaining(self) -> None:
        """Ends whatever a failed test left inside."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def open_namespace() -> Iterator[Namespace]:
    """Keeps a new namespace open; raises `NamespaceUnavailable` if it cannot be made."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise NamespaceUnavailable(f"missing on PATH: {', '.join(missing)} (util-linux, iproute2)")
    rootless = os.geteuid() != 0
    user = ["--map-root-user"] if rootless else []
    with subprocess.Popen(
        ["unshare", *user, "--net", "sh", "-c", _HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "held\n":
            raise NamespaceUnavailable(f"unshare failed: {holder.stderr.read().strip()}")
        namespace = Namespace(holder.pid, _enter(holder.pid, rootless=rootless))
        try:
            yield namespace
        finally:
            namespace.kill_remaining()


def _enter(pid: int, *, rootless: bool) -> tuple[str, ...]:
    user = ["--user", "--preserve-credentials"] if rootless else []
    return ("nsenter", f"--target={pid}", *user, "--net", "--")


def _network_of(pid: int) -> str | None:
    """Identity of the network namespace of a process; None if it is gone or another user's."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return None


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "(gone)"
