"""A command on a terminal of its own: reads what it draws and sends keys."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

WAIT_SECONDS: Final = 120.0
_READ_BYTES: Final = 65_536


def _begin_session() -> None:
    # Otherwise Ctrl-C would not reach the process.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Ignored where the tests run under nohup, and so in every process that they start.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class TerminalProcess:
    """A context manager that always ends the process."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            list(command),
            env=dict(environ),
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_begin_session,
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        """Sends Ctrl-C each second until the process ends, as a person would.

        A signal that comes just before a process waits for a line is noticed with the next key.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            self.type("\x03")
            self._read(time.monotonic() + 1.0)

    def wait_for(self, words: str) -> str:
        """Returns what was drawn up to and with `words`, which later calls no longer see."""
        deadline = time.monotonic() + WAIT_SECONDS
        while words not in self.seen:
            assert self._read(deadline), f"no {words!r}:\n{self.seen}"
        before, found, self.seen = self.seen.partition(words)
        return before + found

    def wait_end(self) -> tuple[int, str]:
        """The exit code, and what was drawn since the last `wait_for`."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(WAIT_SECONDS), self.seen

    def _read(self, deadline: float) -> bool:
        """Returns False at the end of the terminal, or at the deadline."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._ours, _READ_BYTES)
        except OSError:
            # On Linux EIO means that the other end is closed.
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
