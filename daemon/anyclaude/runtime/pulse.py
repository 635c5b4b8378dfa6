"""The pulse of a child: counters in shared memory by which the daemon sees that it makes progress.

The child counts and the daemon compares what it reads with what it read before, by its own clock,
so the two never compare clocks. Two things are counted: the beats of the child's event loop, and
the steps of the MLX thread, with the phase that the step began. Each counter has one writer.
"""

import asyncio
import mmap
import os
import sys
import tempfile
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

# How often an event loop beats, and how often the daemon reads.
BEAT_SECONDS: Final = 1.0
_BEATS, _STEPS, _PHASE = range(3)
_BYTES: Final = 24


class Phase(IntEnum):
    """What the MLX thread does between two steps."""

    # It waits for work, however long; only the beats of the event loop show that the child lives.
    IDLE = 0
    # One chunk of a prompt, including its lookup in the caches.
    PREFILL = 1
    # One turn of decode steps.
    DECODE = 2
    # A command between turns, such as a cache verb.
    COMMAND = 3


@dataclass(frozen=True)
class Counts:
    """One reading of a pulse."""

    beats: int
    steps: int
    phase: Phase


class Pulse:
    """The counters of one process."""

    def __init__(self, fd: int = -1) -> None:
        """Maps the counters of `fd`, which may be closed afterwards; -1: nobody else sees them."""
        self._words = memoryview(mmap.mmap(fd, _BYTES)).cast("Q")

    @classmethod
    def create(cls) -> tuple[Self, int]:
        """New counters, and the descriptor that another process maps; the caller closes it.

        Raises:
            OSError
        """
        fd = _memory_file()
        try:
            # Written, so that the bytes exist: a full disk shows here and not at a later access.
            os.write(fd, bytes(_BYTES))
            return cls(fd), fd
        except BaseException:
            os.close(fd)
            raise

    def beat(self) -> None:
        """Counts one beat of the event loop; call it on the loop's thread only."""
        self._words[_BEATS] += 1

    def step(self, phase: Phase) -> None:
        """Counts one step, which begins `phase`; call it on the MLX thread only."""
        self._words[_PHASE] = phase
        self._words[_STEPS] += 1

    def read(self) -> Counts:
        return Counts(self._words[_BEATS], self._words[_STEPS], Phase(self._words[_PHASE]))

    def keep_beating(self) -> None:
        """Lets the running event loop beat until it ends."""
        self.beat()
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self.keep_beating)


if sys.platform == "linux":

    def _memory_file() -> int:
        return os.memfd_create("anyclaude-pulse")

else:

    def _memory_file() -> int:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
