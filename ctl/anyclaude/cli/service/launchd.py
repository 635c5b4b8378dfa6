"""The service under launchd: a user agent in the session's domain (launchd.plist(5), launchctl(1)).

`launchctl bootout` returns before the job is gone, and a `bootstrap` during that time fails with
code 5 or 37. We therefore wait until the job is gone, and still retry a few times.

`launchctl kickstart -k` kills at once and would cut running answers. A restart therefore sends
SIGTERM, waits until the daemon has drained and ended, and only then starts it again.
"""

import plistlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from anyclaude.cli.command import SYSTEM_CLOCK, Clock, CommandError, ExitCode
from anyclaude.cli.service.manager import Program, Runner, ServiceState, failed, must

LABEL: Final = "dev.anyclaude.daemon"
# 3: no such process; 113: no such service.
_NOT_LOADED: Final = frozenset({3, 113})
_IN_PROGRESS: Final = 36
# 5: input/output error; 37: operation already in progress.
_TRY_AGAIN: Final = frozenset({5, 37})
_BOOTSTRAP_RETRIES: Final = 3
_RETRY_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.25
# The daemon drains for 10 s and then stops its workers within 15 s.
_GONE_SECONDS: Final = 30.0
# How long launchd, and a restart, wait for the daemon's drain before they kill the daemon.
_EXIT_SECONDS: Final = 60


class Launchd:
    """The agent `dev.anyclaude.daemon` of one user."""

    def __init__(self, *, home: Path, uid: int, run: Runner, clock: Clock = SYSTEM_CLOCK) -> None:
        self._home = home
        self._domain = f"gui/{uid}"
        self._target = f"{self._domain}/{LABEL}"
        self._run = run
        self._clock = clock

    @property
    def file(self) -> Path:
        return self._home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    def render(self, program: Program) -> bytes:
        return plistlib.dumps(
            {
                "Label": LABEL,
                "ProgramArguments": [str(program.executable)],
                "EnvironmentVariables": dict(program.environment),
                "RunAtLoad": True,
                # `anyclaudectl shutdown` exits with 0: launchd must not start it again.
                "KeepAlive": {"SuccessfulExit": False},
                "ThrottleInterval": 10,
                # "Background" would run the model on the efficiency cores, eight times slower.
                "ProcessType": "Interactive",
                # Longer than the daemon's drain, the stop of its workers included.
                "ExitTimeOut": _EXIT_SECONDS,
                # launchd's own default is 256.
                "SoftResourceLimits": {"NumberOfFiles": 8192},
                "StandardErrorPath": str(program.boot_log),
                # Decimal for 077.
                "Umask": 63,
            }
        )

    def installed_program(self) -> Path | None:
        try:
            return Path(plistlib.loads(self.file.read_bytes())["ProgramArguments"][0])
        except (OSError, KeyError, IndexError, plistlib.InvalidFileException):
            return None

    def state(self) -> ServiceState:
        done = self._launchctl("print", self._target)
        if done.returncode != 0:
            return ServiceState(loaded=False, running=False, pid=None)
        found = re.search(r"^\s*pid = (\d+)", done.stdout, re.MULTILINE)
        pid = int(found[1]) if found else None
        return ServiceState(loaded=True, running=pid is not None, pid=pid)

    def activate(self) -> None:
        self.stop()
        self.start()

    def start(self) -> None:
        if self.state().loaded:
            must(self._run, ["launchctl", "kickstart", self._target])
            return
        must(self._run, ["launchctl", "enable", self._target])
        self._bootstrap()

    def stop(self) -> None:
        done = self._launchctl("bootout", self._target)
        if done.returncode in _NOT_LOADED:
            return
        if done.returncode not in (0, _IN_PROGRESS):
            raise failed(["launchctl", "bootout", self._target], done)
        self._wait_until_gone()

    def restart(self) -> None:
        """Lets running answers end first; kills a daemon that does not end in time."""
        old = self.state().pid
        force: list[str] = []
        if old is not None:
            self._launchctl("kill", "SIGTERM", self._target)
            # launchd restarts a daemon that fails while it stops, so any other pid will do.
            if not self._wait_until(lambda: self.state().pid != old, _EXIT_SECONDS):
                force = ["-k"]
        must(self._run, ["launchctl", "kickstart", *force, self._target])

    def boot_messages(self, since: float) -> str:
        try:
            log = Path(plistlib.loads(self.file.read_bytes())["StandardErrorPath"])
            return log.read_text(errors="replace") if log.stat().st_mtime > since else ""
        except (OSError, KeyError, plistlib.InvalidFileException):
            return ""

    def remove(self) -> None:
        self.stop()
        self.file.unlink(missing_ok=True)

    def _bootstrap(self) -> None:
        command = ["launchctl", "bootstrap", self._domain, str(self.file)]
        done = self._run(command)
        for _ in range(_BOOTSTRAP_RETRIES):
            if done.returncode not in _TRY_AGAIN:
                break
            self._clock.sleep(_RETRY_SECONDS)
            done = self._run(command)
        if done.returncode != 0:
            raise failed(command, done)

    def _wait_until_gone(self) -> None:
        if not self._wait_until(lambda: not self.state().loaded, _GONE_SECONDS):
            raise CommandError(
                ExitCode.TIMEOUT,
                f"launchd still has {LABEL} after {_GONE_SECONDS:g} s. "
                f"Look at `launchctl print {self._target}`, then try again.",
            )

    def _wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Polls `holds`; False when it does not hold within `seconds`."""
        deadline = self._clock.now() + seconds
        while not holds():
            if self._clock.now() >= deadline:
                return False
            self._clock.sleep(_POLL_SECONDS)
        return True

    def _launchctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["launchctl", *arguments])
