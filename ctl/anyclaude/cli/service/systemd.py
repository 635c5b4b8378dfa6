"""The service under systemd: a unit of the user's manager (systemd.service(5), systemctl(1))."""

import re
from pathlib import Path
from typing import Final

from anyclaude.cli.command import CommandError
from anyclaude.cli.service.manager import Program, Runner, ServiceState, must

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
        # systemd expands variables in the executable as well, and only there.
        executable = _quoted(str(program.executable)).replace("$", "$$")
        return _TEMPLATE.format(executable=executable, environment=environment).encode()

    def installed_program(self) -> Path | None:
        found = re.search(r'^ExecStart="(.+)"$', self.file.read_text(), re.MULTILINE)
        return Path(_unquoted(found[1])) if found else None

    def state(self) -> ServiceState:
        output = self._systemctl("show", UNIT, "--property=LoadState,ActiveState,MainPID")
        known = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        return ServiceState(
            loaded=known.get("LoadState") == "loaded",
            running=known.get("ActiveState") in _RUNNING,
            pid=int(known.get("MainPID", "0")) or None,
        )

    def activate(self) -> None:
        self._systemctl("daemon-reload")
        self._systemctl("enable", UNIT)
        self._systemctl("restart", UNIT)

    def start(self) -> None:
        self._systemctl("start", UNIT)

    def stop(self) -> None:
        self._systemctl("stop", UNIT)

    def restart(self) -> None:
        self._systemctl("restart", UNIT)

    def boot_messages(self, since: float) -> str:
        command = [
            *("journalctl", f"--user-unit={UNIT}", "--identifier=anyclauded"),
            *(f"--since=@{int(since)}", "--lines=50", "--output=cat", "--no-pager", "--quiet"),
        ]
        try:
            done = self._run(command)
        except CommandError:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def remove(self) -> None:
        self._systemctl("disable", "--now", UNIT)
        self.file.unlink(missing_ok=True)
        self._systemctl("daemon-reload")

    def _systemctl(self, *arguments: str) -> str:
        return must(self._run, ["systemctl", "--user", *arguments])


def _quoted(text: str) -> str:
    """Quotes one word of a unit file so that systemd takes it literally."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _unquoted(text: str) -> str:
    """The path that `render` quoted as the executable."""
    for written, meant in (("$$", "$"), ("%%", "%"), ('\\"', '"'), ("\\\\", "\\")):
        text = text.replace(written, meant)
    return text
