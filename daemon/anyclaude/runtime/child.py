"""The shell of a supervised child process.

The three standard streams are the whole protocol between daemon and child:
  stdin   one line of JSON (`Birth`), then silence; its end means that the daemon is gone, and the
          child leaves at once, whatever its other threads do;
  stdout  one line of JSON per notice (`{"ready": {...}}`, `{"failed": "why"}`);
  stderr  logs, one JSON object a line; anything else is wrapped as raw text by the daemon.
`begin()` moves stdout away before any library can print to it.
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
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

from anyclaude.runtime.paths import Paths
from anyclaude.runtime.settings import Settings


class ExitCode(IntEnum):
    """Why a child left; the supervisor decides by it whether to start it again."""

    OK = 0
    FAILED = 1
    # Permanent, from sysexits.h: EX_UNAVAILABLE (the model is missing) and EX_CONFIG.
    UNAVAILABLE = 69
    CONFIG = 78
    # EX_TEMPFAIL: start again.
    RETRY = 75


@dataclass(frozen=True)
class Birth:
    """What the daemon tells a child at its start."""

    name: str
    generation: int
    socket_path: Path
    paths: Paths
    settings: Settings
    # The bound HTTP socket, inherited; None for children that serve no HTTP.
    listen_fd: int | None = None

    def to_json(self) -> str:
        return json.dumps(
            {
                "name": self.name,
                "generation": self.generation,
                "socket_path": str(self.socket_path),
                "paths": {key: str(value) for key, value in asdict(self.paths).items()},
                "settings": self.settings.model_dump(mode="json"),
                "listen_fd": self.listen_fd,
            }
        )

    @classmethod
    def from_json(cls, line: str) -> "Birth":
        data: dict[str, Any] = json.loads(line)
        return cls(
            name=data["name"],
            generation=data["generation"],
            socket_path=Path(data["socket_path"]),
            paths=Paths(**{key: Path(value) for key, value in data["paths"].items()}),
            settings=Settings.model_validate(data["settings"]),
            listen_fd=data["listen_fd"],
        )


class Child:
    """This process as its daemon sees it."""

    def __init__(self, birth: Birth, notices_fd: int) -> None:
        self.birth = birth
        self._notices_fd = notices_fd

    def ready(self, facts: Mapping[str, Any] | None = None) -> None:
        """Says that this child serves from now on."""
        # What the start made stays. Walking it in each full collection would stop every stream for
        # some fifty milliseconds.
        gc.collect()
        gc.freeze()
        self._notify({"ready": dict(facts or {})})

    def leave(self, code: ExitCode, why: str) -> NoReturn:
        """Ends this process with a cause that `anyclaudectl status` will show."""
        self._notify({"failed": why})
        sys.stderr.flush()
        os._exit(code)

    def _notify(self, notice: Mapping[str, Any]) -> None:
        os.write(self._notices_fd, (json.dumps(notice) + "\n").encode())


def begin() -> Child:
    """Reads the birth line, takes stdout for notices and starts watching for the daemon's end.

    Call it from the main thread, before anything else runs: it also sets the signals of the shell.
    """
    _die_with_parent()
    # Ctrl-C in a terminal reaches the whole process group; stopping children is the daemon's job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The stack of a native crash, or of the abort that ends a start that takes too long.
    faulthandler.enable()
    notices_fd = os.dup(1)
    os.dup2(2, 1)
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(ExitCode.OK)
    birth = Birth.from_json(line.decode())
    watch_end_of(sys.stdin.fileno(), lambda: os._exit(ExitCode.OK))
    return Child(birth, notices_fd)


def _die_with_parent() -> None:
    """On Linux the kernel kills this process with the thread that started it.

    The second layer below the death pipe, for native code that holds the interpreter's lock. A
    parent that died before this call has closed the pipe already, so nothing is left to re-check.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def watch_end_of(fd: int, on_end: Callable[[], object]) -> None:
    """Calls `on_end` from a thread of its own once the other end of `fd` closes."""

    def watch() -> None:
        while os.read(fd, 4096):
            pass
        on_end()

    threading.Thread(target=watch, name="daemon-watch", daemon=True).start()
