"""The service under launchd: install, restart under load, restart after a kill, uninstall.

Each step is one row of the report. The agent is removed in any case, and nothing starts when this
user has the service installed already: its caches and settings are not ours to stop.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tools.mac_check.report import CheckError, Row, SkippedError, table
from tools.mac_check.requests import tool_call
from tools.mac_check.service import Answer, Commands, own_home, send

LABEL: Final = "dev.anyclaude.daemon"
PLIST: Final = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
# launchd waits 10 seconds before it starts a daemon again that died soon.
BACK_SECONDS: Final = 60
_LOAD_TOKENS: Final = 1_000
_ANSWER_SECONDS: Final = 300
_POLL_SECONDS: Final = 0.5


def section(model: Path | None) -> list[str]:
    """Runs all steps and returns their table."""
    require_launchd(sys.platform, PLIST)
    with own_home() as home:
        return exercise(Commands(home, model), launchctl_pid)


def require_launchd(platform: str, plist: Path) -> None:
    """Raises SkippedError where the steps cannot run, or would touch a service in use."""
    if platform != "darwin":
        raise SkippedError("launchd exists on macOS only.")
    if plist.exists():
        raise SkippedError(
            "The service is installed for this user, and this check would stop it. To run it: "
            "`anyclaudectl service uninstall` (settings and caches stay), `tools/mac-check --only "
            "launchd`, `anyclaudectl service install`."
        )


def exercise(commands: Commands, pid_of_job: Callable[[], int | None]) -> list[str]:
    """The steps, in order; the first that fails ends them, with those before it in the message."""
    rows: list[Row] = []
    try:
        for name, step in (
            ("install, load, wait until ready", install),
            ("install again changes nothing", install_again),
            ("restart while an answer streams", restart_under_load),
            ("kill -9 of the daemon", kill),
        ):
            began = time.monotonic()
            found = step(commands)
            require_same_pid(commands, pid_of_job())
            rows.append((name, f"{found} ({time.monotonic() - began:.1f} s)"))
    except CheckError as error:
        done = ", ".join(name for name, _ in rows) or "none"
        raise CheckError(f"{error}\nSteps that passed before: {done}.") from error
    finally:
        removed = commands.ctl("service", "uninstall").strip()
    if pid_of_job() is not None:
        raise CheckError("launchd still runs the service after `service uninstall`.")
    return table(("Step", "Result"), [*rows, ("uninstall", removed or "removed")])


def install(commands: Commands) -> str:
    commands.ctl("service", "install")
    commands.wait_ready()
    return "ready"


def install_again(commands: Commands) -> str:
    before = commands.status()["pid"]
    commands.ctl("service", "install")
    if commands.status()["pid"] != before:
        raise CheckError("A second `service install` restarted the service.")
    return "the same process"


def restart_under_load(commands: Commands) -> str:
    """Restarts by a changed setting while an answer streams; says how that answer ended."""
    before = commands.status()
    answer = Streaming(before["base_url"])
    answer.wait_until_running(commands)
    commands.ctl("service", "install", extra={"ANYCLAUDE_LOG_LEVEL": "debug"})
    after = commands.wait_ready()
    if after["pid"] == before["pid"]:
        raise CheckError("The service was not restarted although a setting changed.")
    return f"a new process; the answer was {answer.result()}"


def kill(commands: Commands) -> str:
    before = commands.status()["pid"]
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + BACK_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        try:
            if commands.status()["pid"] != before:
                commands.wait_ready()
                return "launchd started it again"
        except CheckError:
            continue
    raise CheckError(f"The service is not back {BACK_SECONDS} s after it was killed.")


class Streaming:
    """A long answer that a thread reads: a tool call, since a small model ends a free one soon."""

    def __init__(self, base_url: str, max_tokens: int = _LOAD_TOKENS) -> None:
        self._ended: queue.Queue[Answer | Exception] = queue.Queue()
        body = tool_call(max_tokens)
        threading.Thread(target=self._read, args=(base_url, body), daemon=True).start()

    def wait_until_running(self, commands: Commands) -> None:
        """Waits until the worker computes the answer; a very short answer may be over before."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._ended.empty() and not commands.status()["running_requests"]:
            if time.monotonic() > deadline:
                raise CheckError("The service did not begin to answer.")

    def result(self) -> str:
        """How the answer ended, in words."""
        try:
            ended = self._ended.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            return "still silent: it hangs"
        if isinstance(ended, Answer):
            return f"{ended.ended}, {ended.output_tokens} tokens"
        return f"refused: {type(ended).__name__}: {ended}"

    def _read(self, base_url: str, body: dict[str, Any]) -> None:
        try:
            self._ended.put(send(base_url, body))
        except Exception as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._ended.put(error)


def launchctl_pid() -> int | None:
    """The pid of the agent as launchd knows it."""
    done = subprocess.run(
        ["launchctl", "list", LABEL], capture_output=True, text=True, timeout=30, check=False
    )
    for line in done.stdout.splitlines():
        name, _, value = line.strip().partition(" = ")
        if name == '"PID"':
            return int(value.rstrip(";"))
    return None


def require_same_pid(commands: Commands, pid: int | None) -> None:
    answering = commands.status()["pid"]
    if pid != answering:
        raise CheckError(f"launchd names pid {pid}, but pid {answering} answers.")
