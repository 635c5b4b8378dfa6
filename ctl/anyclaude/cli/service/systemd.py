"""The service under systemd: a unit of the user's manager (systemd.service(5), systemctl(1))."""

import subprocess
from pathlib import Path
from typing import Final

from anyclaude.cli.service.manager import Program, ServiceState
from anyclaude.cli.service.runner import Runner, failed, must

UNIT: Final = "anyclaude.service"
_RUNNING: Final = frozenset({"active", "activating", "reloading", "deactivating"})

_TEMPLATE: Final = """\
[Unit]
Description=anyclaude: Claude Code on local models
# A crash loop ends here; children are restarted inside the daemon.
StartLimitIntervalSec=120
StartLimitBurst=5

[Service]
Type=exec
ExecStart={executable}
{environment}
Restart=on-failure
RestartSec=1
# A broken configuration or a missing model does not get better by trying again.
RestartPreventExitStatus=69 78
# Longer than the daemon's drain, the stop of its workers included.
TimeoutStopSec=60
KillMode=control-group
LimitNOFILE=8192
UMask=0077

[Install]
WantedBy=default.target
"""


class Systemd:
    """The unit `anyclaude.service` of one user."""

    def __init__(self, *, config: Path, run: Runner) -> None:
        self._config = config
        self._run = run

    @property
    def file(self) -> Path:
        return self._config / "systemd" / "user" / UNIT

    def render(self, program: Program) -> bytes:
        environment = "\n".join(
            f"Environment={_quoted(f'{name}={value}')}"
            for name, value in program.environment.items()
        )
        # The executable alone is also subject to variable expansion.
        executable = _quoted(str(program.executable)).replace("$", "$$")
        return _TEMPLATE.format(executable=executable, environment=environment).encode()

    def state(self) -> ServiceState:
        command = ["show", UNIT, "--property=LoadState,ActiveState,MainPID"]
        done = self._systemctl(*command)
        if done.returncode != 0:
            raise failed(["systemctl", "--user", *command], done)
        known = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        return ServiceState(
            loaded=known.get("LoadState") == "loaded",
            running=known.get("ActiveState") in _RUNNING,
            pid=int(known.get("MainPID", "0")) or None,
        )

    def activate(self) -> None:
        self._must("daemon-reload")
        self._must("enable", UNIT)
        self._must("restart", UNIT)

    def start(self) -> None:
        self._must("start", UNIT)

    def stop(self) -> None:
        self._must("stop", UNIT)

    def restart(self) -> None:
        self._must("restart", UNIT)

    def forget(self) -> None:
        self._must("disable", "--now", UNIT)

    def forgotten(self) -> None:
        self._must("daemon-reload")

    def _must(self, *arguments: str) -> None:
        must(self._run, ["systemctl", "--user", *arguments])

    def _systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["systemctl", "--user", *arguments])


def _quoted(text: str) -> str:
    """A word of a unit file: quoted, with specifiers and escapes taken literally."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
