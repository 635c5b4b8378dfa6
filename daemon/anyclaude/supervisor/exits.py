"""Learning that a process ended, without polling and without SIGCHLD.

One seam, `_open_watch`: a pidfd on Linux, a kqueue on macOS. Both are file descriptors that an
event loop can watch.
"""

import asyncio
import os
import select
import sys
from collections.abc import Callable

# The descriptor that becomes readable at the exit, and how to close it.
_Watch = tuple[int, Callable[[], None]]


def watch_exit(loop: asyncio.AbstractEventLoop, pid: int, on_exit: Callable[[], None]) -> None:
    """Calls `on_exit` once, on the loop, after `pid` has ended.

    `pid` is a child of this process that nobody has reaped; reaping it is for `on_exit`.
    """
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
            # Already on its way out: a wait() for it returns within moments.
            queue.close()
            return None
        return queue.fileno(), queue.close

else:

    def _open_watch(pid: int) -> _Watch | None:
        fd = os.pidfd_open(pid)
        return fd, lambda: os.close(fd)
