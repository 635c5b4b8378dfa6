"""The child's side of the protocol between the daemon and a child process.

The protocol uses the three standard streams:
  stdin   One line of JSON (`Birth`), then nothing. The end of the stream means that the daemon is
          gone; the child then exits at once, whatever its other threads do.
  stdout  One line of JSON per notice: `{"ready": {...}}` or `{"failed": "why"}`.
  stderr  Logs, one JSON object per line. The daemon logs any other line as raw text.
`begin()` replaces stdout by stderr, so that no library can print into the notices.
"""

import ctypes
import faulthandler
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter

from anyclaude.runtime.paths import Paths
from anyclaude.runtime.pulse import Pulse
from anyclaude.runtime.settings import Settings


class ExitCode(IntEnum):
    """Why a child exited; the supervisor decides by it whether to start the child again."""

    OK = 0
    FAILED = 1
    # Permanent, from sysexits.h: EX_UNAVAILABLE (the model is missing) and EX_CONFIG.
    UNAVAILABLE = 69
    CONFIG = 78
    # EX_OSERR: other programs use the memory now. Started again for as long as it takes.
    SHORT_OF_MEMORY = 71
    # EX_TEMPFAIL: to be started again.
    RETRY = 75


@dataclass(frozen=True)
class Birth:
    """The parameters of a child, written to its stdin when it starts."""

    name: str
    generation: int
    socket_path: Path
    paths: Paths
    settings: Settings
    # Descriptor of the bound HTTP socket; None for children that serve no HTTP.
    listen_fd: int | None = None
    # Descriptor of the pulse that the daemon reads; -1: no daemon reads it.
    pulse_fd: int = -1

    def to_json(self) -> str:
        return TypeAdapter(Birth).dump_json(self).decode()

    @classmethod
    def from_json(cls, line: str) -> "Birth":
        return TypeAdapter(cls).validate_json(line)


def end_of_start() -> None:
    """Tells the garbage collector that the objects of now live as long as the process.

    Without this, each full collection would traverse them and stop every stream for about fifty
    milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


class Child:
    """This process, seen as a child of the daemon."""

    def __init__(self, birth: Birth, notices_fd: int) -> None:
        self.birth = birth
        self.pulse = Pulse(birth.pulse_fd)
        self._notices_fd = notices_fd
        if birth.pulse_fd >= 0:
            os.close(birth.pulse_fd)

    def ready(self, facts: Mapping[str, Any] | None = None) -> None:
        """Reports that this child serves from now on."""
        end_of_start()
        self._notify({"ready": dict(facts or {})})

    def leave(self, code: ExitCode, why: str) -> NoReturn:
        """Ends this process; `anyclaudectl status` shows the reason."""
        self._notify({"failed": why})
        sys.stderr.flush()
        os._exit(code)

    def _notify(self, notice: Mapping[str, Any]) -> None:
        os.write(self._notices_fd, (json.dumps(notice) + "\n").encode())


def _exit() -> None:
    os._exit(ExitCode.OK)


def begin(end: Callable[[], None] = _exit) -> Child:
    """Reads the birth line, reserves stdout for notices and starts watching for the daemon's end.

    Call it from the main thread before anything else runs: it also sets signal handlers.

    Args:
        end: what ends this process when the daemon is gone.
    """
    if end is _exit:
        _die_with_parent()
    # Ctrl-C in a terminal reaches the whole process group, but only the daemon stops children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Prints the stack of a native crash, or of the SIGABRT that ends a child without progress.
    faulthandler.enable()
    notices_fd = os.dup(1)
    os.dup2(2, 1)
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(ExitCode.OK)
    birth = Birth.from_json(line.decode())
    watch_end_of(sys.stdin.fileno(), end)
    return Child(birth, notices_fd)


def _die_with_parent() -> None:
    """On Linux, makes the kernel kill this process when the thread that started it ends.

    The end of stdin is not noticed while native code keeps the interpreter's lock; this is. If the
    parent died before this call, stdin has ended already.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def watch_end_of(fd: int, on_end: Callable[[], object]) -> None:
    """Calls `on_end`, in a new thread, once the other end of `fd` is closed."""

    def watch() -> None:
        while os.read(fd, 4096):
            pass
        on_end()

    threading.Thread(target=watch, name="daemon-watch", daemon=True).start()
