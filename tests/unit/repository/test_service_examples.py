"""The examples under deploy/ are what `service install` renders, with placeholder paths.

UPDATE_EXAMPLES=1 makes this test write them.
"""

import os
from pathlib import Path

import pytest

from anyclaude.cli.service.launchd import Launchd
from anyclaude.cli.service.lifecycle import find_program
from anyclaude.cli.service.manager import Program, ServiceManager
from anyclaude.cli.service.systemd import Systemd
from anyclaude.runtime.paths import find_paths
from tests.checkout import ROOT
from tests.unit.cli.recorded_commands import RecordedCommands

_DEPLOY = ROOT / "deploy"
_NEVER = RecordedCommands(lambda line: pytest.fail(line))


def _program(tmp_path: Path, home: str, logs: str) -> Program:
    """The program as this code composes it, its paths then put under a placeholder home."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    (scripts / "anyclauded").touch()
    found = find_program(scripts, find_paths({"ANYCLAUDE_HOME": "/x"}), {"LANG": "en_US.UTF-8"})
    placed = f"{home}/anyclaude/.venv/bin"
    return Program(
        executable=Path(placed) / found.executable.name,
        environment={
            name: value.replace(str(scripts), placed) for name, value in found.environment.items()
        },
        boot_log=Path(logs) / found.boot_log.name,
    )


@pytest.mark.parametrize(
    ("example", "manager", "home", "logs"),
    [
        (
            "launchd/dev.anyclaude.daemon.plist",
            Launchd(home=Path("/Users/you"), uid=501, run=_NEVER),
            "/Users/you",
            "/Users/you/Library/Logs/anyclaude",
        ),
        (
            "systemd/anyclaude.service",
            Systemd(config=Path("/home/you/.config"), run=_NEVER),
            "/home/you",
            "/home/you/.local/state/anyclaude/log",
        ),
    ],
)
def test_examples_are_current(
    tmp_path: Path, example: str, manager: ServiceManager, home: str, logs: str
) -> None:
    """Each committed example equals today's rendering."""
    rendered = manager.render(_program(tmp_path, home, logs))
    file = _DEPLOY / example
    if os.environ.get("UPDATE_EXAMPLES"):
        file.write_bytes(rendered)

    assert manager.file.name == file.name
    assert file.read_bytes() == rendered
