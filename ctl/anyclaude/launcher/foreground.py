"""Runs Claude Code as a child that has the terminal as if it had been started by the shell.

- The child stays in our process group, so the terminal sends Ctrl-C, Ctrl-\\, Ctrl-Z and changes of
  its size to the child itself. We only survive them.
- A signal that is sent to our process alone is passed on.
- When the child stops, we stop as well, so that the shell takes the terminal back; `fg` continues
  both.
- `leave_as` ends us with the exit code of the child, or by the signal that ended it.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, Final, NoReturn, Self

_Handler = Callable[[int, FrameType | None], Any] | int | None

# The terminal sends these to the whole process group.
_OF_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Python ignores these, and a new program would inherit that.
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_MANY_SIGNALS: Final = 4096


def run(program: str, command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Starts `program` and returns its wait status when it has ended.

    Raises:
        OSError: it cannot be started.
    """
    with _Signals() as signals:
        child = os.posix_spawn(program, list(command), dict(environ), setsigdef=_IGNORED_BY_PYTHON)
        signals.pass_on_to(child)
        return _wait(child, signals)


def leave_as(status: int) -> NoReturn:
    """Ends this process as the child ended whose wait status this is."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # The child has written its core file, if it was to write one.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        sys.stdout.flush()
        sys.stderr.flush()
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))


class _Signals:
    """Survives the terminal's signals, and passes the others on; those that come early wait.

    A signal that our caller ignores stays ignored.
    """

    def __init__(self) -> None:
        self._child: int | None = None
        self._early: list[int] = []
        # Any signal makes it readable, also one that another thread gets, or that comes just
        # before we wait: a system call that waits for the child would not notice those.
        self._readable, self._written = os.pipe()
        os.set_blocking(self._written, False)
        signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        # A handler, since a child would inherit SIG_IGN.
        survived = dict.fromkeys((*_OF_THE_TERMINAL, signal.SIGCHLD), lambda *_: None)
        handlers = survived | dict.fromkeys(_PASSED_ON, self._pass_on)
        self._before: dict[signal.Signals, _Handler] = {
            number: signal.signal(number, handler)
            for number, handler in handlers.items()
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._readable)
        os.close(self._written)

    def pass_on_to(self, child: int) -> None:
        self._child = child
        for number in self._early:
            os.kill(child, number)

    def wait(self) -> None:
        """Waits for any signal since the last call."""
        os.read(self._readable, _MANY_SIGNALS)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if self._child is None:
            self._early.append(number)
        else:
            os.kill(self._child, number)


def _wait(child: int, signals: _Signals) -> int:
    while True:
        pid, status = os.waitpid(child, os.WUNTRACED | os.WNOHANG)
        if not pid:
            signals.wait()
        elif not os.WIFSTOPPED(status):
            return status
        else:
            os.kill(os.getpid(), signal.SIGSTOP)
            # We were continued. Whoever did that to us alone means the child as well.
            os.kill(child, signal.SIGCONT)
