"""One operating-system process of a child: spawned, watched and reaped.

asyncio's subprocesses are not used: their watcher reaps a process before the event loop knows, so a
later kill could hit an unrelated process with the same pid. Here only the event loop's thread
reaps, and `ChildProcess.signal` does nothing afterwards.

The child stays in the daemon's process group, because launchd kills the whole group. The child
exits when its stdin ends; our end of that pipe is closed on exec, so no sibling keeps it open.

The end of a process is noticed without polling and without SIGCHLD, by a file descriptor that the
event loop watches: a pidfd on Linux, a kqueue on macOS.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import structlog

from anyclaude.runtime.child import Birth
from anyclaude.supervisor.child_output import ChildLog, LinePipe
from anyclaude.supervisor.supervisor import Exit

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# The descriptor that becomes readable at the exit, and how to close it.
_Watch = tuple[int, Callable[[], None]]


@dataclass(frozen=True)
class Launch:
    """How a process begins."""

    command: Sequence[str]
    environment: Mapping[str, str]
    birth: Birth
    # The process leads a group of its own, which is killed when the process has ended.
    has_group: bool = False


class ChildProcess:
    """A started process; `on_ready` and `on_exit` are called on the loop, the latter once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        launch: Launch,
        on_ready: Callable[[], None],
        on_exit: Callable[[Exit], None],
    ) -> None:
        """Spawns; call it on the main thread, since Linux ties a child's life to its thread.

        Raises:
            OSError: the process could not be started.
        """
        self._name = launch.birth.name
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._failed = ""
        self._is_ready = False
        self._log = ChildLog(self._name)
        self._has_group = launch.has_group
        self._process = _spawn(launch)
        try:
            self._watch(loop, launch.birth)
        except OSError:
            # No descriptor was left, and a process that nobody watches must not live on.
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Does nothing once the process was reaped."""
        self._process.send_signal(number)

    def _watch(self, loop: asyncio.AbstractEventLoop, birth: Birth) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdout = LinePipe(loop, _detach(self._process.stdout), self._notice)
        self._stderr = LinePipe(loop, _detach(self._process.stderr), self._log.line)
        self._send_birth(birth)
        _watch_exit(loop, self.pid, self._ended)

    def _send_birth(self, birth: Birth) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(birth.to_json().encode() + b"\n")
        except BrokenPipeError:
            # The child died first; its exit status has the reason.
            _log.debug("child left before its birth line", worker=self._name)

    def _notice(self, line: bytes) -> None:
        notice = _parse(line)
        if notice is None:
            _log.warning("not a notice", worker=self._name, text=line.decode(errors="replace"))
        elif "ready" in notice and not self._is_ready:
            self._is_ready = True
            self._on_ready()
        elif "failed" in notice:
            self._failed = str(notice["failed"])

    def _ended(self) -> None:
        if self._has_group:
            # Before the process is reaped: until then its number belongs to its group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._stdout.finish()
        self._stderr.finish()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._on_exit(_describe(code, self._failed, self._log.tail))


def _spawn(launch: Launch) -> subprocess.Popen[bytes]:
    inherited = (launch.birth.listen_fd, launch.birth.pulse_fd)
    # Ctrl-C in a terminal must not end the child before it ignores SIGINT itself. A blocked signal
    # stays blocked across exec.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            list(launch.command),
            env=dict(launch.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0 if launch.has_group else None,
            pass_fds=[fd for fd in inherited if fd is not None and fd >= 0],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _detach(pipe: IO[bytes]) -> int:
    """The pipe's descriptor, without the file object, which would close it when collected."""
    fd = os.dup(pipe.fileno())
    pipe.close()
    return fd


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        notice = json.loads(line)
    except ValueError:
        return None
    return notice if isinstance(notice, dict) else None


def signal_name(number: int) -> str:
    """The signal's name; most real-time signals have none."""
    known = {each.value: each.name for each in signal.Signals}
    return known.get(number, f"signal {number}")


def _describe(returncode: int, failed: str, tail: str) -> Exit:
    if returncode < 0:
        name = signal_name(-returncode)
        return Exit(None, name, failed or f"ended by {name}", tail)
    return Exit(returncode, "", failed or f"exited with code {returncode}", tail)


def _watch_exit(loop: asyncio.AbstractEventLoop, pid: int, on_exit: Callable[[], None]) -> None:
    """Calls `on_exit` once, on the loop, after `pid` has ended; `on_exit` has to reap it."""
    watch = _open_watch(pid)
    if watch is None:
        loop.call_soon(on_exit)
        return
    fd, close = watch

    def readable() -> None:
        loop.remove_reader(fd)
        close()
        on_exit()

    loop.add_reader(fd, readable)


if sys.platform == "darwin":

    def _open_watch(pid: int) -> _Watch | None:
        queue = select.kqueue()
        event = select.kevent(
            pid,
            filter=select.KQ_FILTER_PROC,
            flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
            fflags=select.KQ_NOTE_EXIT,
        )
        try:
            queue.control([event], 0)
        except ProcessLookupError:
            # The process is ending: wait() returns within moments.
            queue.close()
            return None
        return queue.fileno(), queue.close

else:

    def _open_watch(pid: int) -> _Watch | None:
        fd = os.pidfd_open(pid)
        return fd, lambda: os.close(fd)
