"""A server of `[upstreams.NAME]` with a `command`, as a child of the daemon.

This process starts the command, says when the server answers, passes its output to the log, and
ends it. To the daemon it is a child like the others, with the same states, limits and pauses.

It leads a process group of its own, to which the server and what the server starts belong. When
this process ends, for whatever reason, the daemon kills the group; when the daemon ends, this
process does.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import structlog

from anyclaude.runtime import logs
from anyclaude.runtime.child import Child, ExitCode, begin
from anyclaude.runtime.upstreams import UpstreamSettings
from anyclaude.supervisor.process import signal_name

log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 0.25
_ANSWER_SECONDS: Final = 2.0
# How long the server may take to end by itself; less than the daemon waits for this process.
_STOP_SECONDS: Final = 10.0


def main() -> None:
    child = begin(end=_kill_group)
    logs.configure(child.birth.settings.log.level, console=False)
    settings = child.birth.settings.upstreams[child.birth.name]
    stopping = _Stopping()
    server = _start(child, settings)
    # Its arguments may contain a key.
    log.info("server started", program=settings.command[0], pid=server.pid)
    is_ready = False
    while server.poll() is None:
        child.pulse.beat()
        if stopping.is_requested:
            _stop(server)
            return
        if not is_ready and _answers(settings):
            is_ready = True
            child.ready()
        time.sleep(_POLL_SECONDS)
    child.leave(ExitCode.FAILED, f"`{settings.command[0]}` {_how(server.returncode)}")


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal_name(-code)}"
    return f"ended with code {code}"


class _Stopping:
    """Remembers SIGTERM, which this process also gets when it ends its group by it."""

    def __init__(self) -> None:
        self.is_requested = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, *_: object) -> None:
        self.is_requested = True


def _start(child: Child, settings: UpstreamSettings) -> "subprocess.Popen[bytes]":
    # Its output goes to our stderr, which the daemon logs.
    command = [
        str(Path(part).expanduser()) if part[:1] == "~" else part for part in settings.command
    ]
    folder = Path(settings.folder).expanduser() if settings.folder else None
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **settings.environment},
            stdin=subprocess.DEVNULL,
            stdout=2,
            stderr=2,
        )
    except OSError as error:
        name = child.birth.name
        child.leave(ExitCode.CONFIG, f"upstreams.{name}.command cannot be started: {error}")


def _answers(settings: UpstreamSettings) -> bool:
    # Without the environment's proxies: the server is on this machine, or beside it.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(settings.root + settings.ready_path, timeout=_ANSWER_SECONDS):
            return True
    except HTTPError as error:
        # It asks for its key, which the relay has.
        return error.code in (401, 403)
    except (OSError, ValueError):
        return False


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """Asks the whole group to end; the daemon kills what is left of it."""
    os.killpg(0, signal.SIGTERM)
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("server did not end by itself", seconds=_STOP_SECONDS)


def _kill_group() -> None:
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
