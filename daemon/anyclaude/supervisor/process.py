"""One real child process: born with a line on stdin, heard on stdout and stderr, reaped once.

Not asyncio's subprocesses: its watcher reaps before the loop knows, so a later kill could hit a
stranger's pid. Here the loop thread alone reaps, and `signal` cannot outlive the process.

The child stays in our process group: launchd kills the group with the daemon. Its stdin is the
death pipe; our end of it is closed on exec, so no sibling keeps it open.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import structlog

from anyclaude.runtime.child import Birth
from anyclaude.supervisor.child_logs import ChildLog
from anyclaude.supervisor.exits import watch_exit
from anyclaude.supervisor.pipes import LinePipe
from anyclaude.supervisor.supervisor import Exit

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Launch:
    """How a process begins."""

    command: Sequence[str]
    environment: Mapping[str, str]
    birth: Birth


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
        self._process = _spawn(launch)
        try:
            self._attend(loop, launch.birth)
        except OSError:
            # Out of descriptors: a process that nobody watches must not live.
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Does nothing once the process was reaped."""
        self._process.send_signal(number)

    def _attend(self, loop: asyncio.AbstractEventLoop, birth: Birth) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdout = LinePipe(loop, _take(self._process.stdout), self._notice)
        self._stderr = LinePipe(loop, _take(self._process.stderr), self._log.line)
        self._give_birth(birth)
        watch_exit(loop, self.pid, self._ended)

    def _give_birth(self, birth: Birth) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(birth.to_json().encode() + b"\n")
        except BrokenPipeError:
            # It died first; its exit says how.
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
        code = self._process.wait()
        self._stdout.finish()
        self._stderr.finish()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._on_exit(_describe(code, self._failed, self._log.tail))


def _spawn(launch: Launch) -> subprocess.Popen[bytes]:
    listen_fd = launch.birth.listen_fd
    # Until the child ignores it itself, Ctrl-C in the terminal must not end it: a blocked signal
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
            pass_fds=() if listen_fd is None else (listen_fd,),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _take(pipe: IO[bytes]) -> int:
    """The pipe's descriptor, without the object that would close it behind our back."""
    fd = os.dup(pipe.fileno())
    pipe.close()
    return fd


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        notice = json.loads(line)
    except ValueError:
        return None
    return notice if isinstance(notice, dict) else None


def _describe(returncode: int, failed: str, tail: str) -> Exit:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return Exit(None, name, failed or f"ended by {name}", tail)
    return Exit(returncode, "", failed or f"exited with code {returncode}", tail)
