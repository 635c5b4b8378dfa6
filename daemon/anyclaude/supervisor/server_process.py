"""A server of `[upstreams.NAME]` with a `command`, as a child of the daemon.

This process starts the command, says when the server answers, passes its output to the log, and
ends it. To the daemon it is a child like the others, with the same states, limits and pauses.

What the server prints after it is ready may contain prompts, and is logged only if the settings say
so.

It leads a process group of its own, to which the server and what the server starts belong. When
this process ends, for whatever reason, the daemon kills the group; when the daemon ends, this
process does.
"""

import os
import signal
import subprocess
import threading
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
_READ_BYTES: Final = 64 * 1024
# How long to wait for the rest of the output of a server that ended.
_OUTPUT_SECONDS: Final = 1.0


def main() -> None:
    child = begin(end=_kill_group)
    logs.configure(child.birth.settings.log.level, console=False)
    settings = child.birth.settings.upstreams[child.birth.name]
    stopping = _Stopping()
    server = _start(child, settings)
    # Its arguments may contain a key.
    log.info("server started", program=settings.command[0], pid=server.pid)
    output = _Output(server)
    is_ready = False
    while server.poll() is None:
        child.pulse.beat()
        if stopping.is_requested:
            _stop(server)
            return
        if not is_ready and _answers(settings):
            is_ready = True
            output.is_logged = settings.log_output
            child.ready()
        time.sleep(_POLL_SECONDS)
    output.finish()
    hint = "" if output.is_logged else f" (upstreams.{child.birth.name}.log_output logs its output)"
    child.leave(ExitCode.FAILED, f"`{settings.command[0]}` {_how(server.returncode)}{hint}")


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal_name(-code)}"
    return f"ended with code {code}"


class _Output:
    """Reads what the server prints, and passes it to our stderr, which the daemon logs."""

    def __init__(self, server: "subprocess.Popen[bytes]") -> None:
        self.is_logged = True
        assert server.stdout is not None
        self._source = server.stdout
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while data := os.read(self._source.fileno(), _READ_BYTES):
            if self.is_logged:
                os.write(2, data)

    def finish(self) -> None:
        """Waits for the rest; what the server started may still have the pipe."""
        self._thread.join(_OUTPUT_SECONDS)


class _Stopping:
    """Remembers SIGTERM, which this process also gets when it ends its group by it."""

    def __init__(self) -> None:
        self.is_requested = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, *_: object) -> None:
        self.is_requested = True


def _start(child: Child, settings: UpstreamSettings) -> "subprocess.Popen[bytes]":
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
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
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
