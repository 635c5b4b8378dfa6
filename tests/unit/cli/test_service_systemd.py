"""The systemd user unit."""

import configparser
from pathlib import Path

import pytest

from anyclaude.cli.command import CommandError
from anyclaude.cli.service.manager import Program
from anyclaude.cli.service.systemd import Systemd
from tests.unit.cli.recorded_commands import RecordedCommands, Reply


def _unit(reply: Reply = (0, "")) -> tuple[Systemd, RecordedCommands]:
    run = RecordedCommands(lambda _: reply)
    return Systemd(config=Path("/home/you/.config"), run=run), run


def test_unit_text() -> None:
    """Restart on failure only, a stop longer than our drain, the whole group, private files."""
    unit, _ = _unit()
    text = unit.render(Program(Path("/v/bin/anyclauded"), {"A": "b"}, Path("/boot.log"))).decode()
    parsed = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[method-assign,assignment]
    parsed.read_string(text)

    service = dict(parsed["Service"])
    assert service["ExecStart"] == '"/v/bin/anyclauded"'
    assert service["Environment"] == '"A=b"'
    assert service["Restart"] == "on-failure"
    assert service["RestartSec"] == "1"
    assert service["TimeoutStopSec"] == "60"
    assert service["KillMode"] == "control-group"
    assert service["LimitNOFILE"] == "8192"
    assert service["UMask"] == "0077"
    assert service["RestartPreventExitStatus"] == "69 78"
    assert parsed["Install"]["WantedBy"] == "default.target"


def test_odd_paths_are_taken_literally() -> None:
    """Spaces, quotes, percent and dollar signs in a path are literal."""
    unit, _ = _unit()
    program = Program(Path('/a b/50%/$HOME/"q"/anyclauded'), {"K": "a b%"}, Path("/boot.log"))

    text = unit.render(program).decode()

    assert 'ExecStart="/a b/50%%/$$HOME/\\"q\\"/anyclauded"' in text
    assert 'Environment="K=a b%%"' in text


def test_activation_takes_the_file_in_first() -> None:
    """Activation runs daemon-reload, enable and restart for the user's manager."""
    unit, run = _unit()

    unit.activate()

    assert run.lines == [
        "systemctl --user daemon-reload",
        "systemctl --user enable anyclaude.service",
        "systemctl --user restart anyclaude.service",
    ]


@pytest.mark.parametrize(
    ("active", "pid", "running"),
    [("active", "7", True), ("activating", "0", True), ("inactive", "0", False)],
)
def test_state(active: str, pid: str, running: bool) -> None:
    """State and pid are read from `systemctl show`; pid 0 means none."""
    unit, _ = _unit((0, f"LoadState=loaded\nActiveState={active}\nMainPID={pid}\n"))

    state = unit.state()

    assert state.loaded
    assert state.running is running
    assert state.pid == (int(pid) or None)


def test_failure_quotes_systemctl() -> None:
    """The error quotes the command and its message, for example without a user bus."""
    unit, _ = _unit((1, "Failed to connect to bus"))

    with pytest.raises(CommandError, match=r"daemon-reload.*Failed to connect to bus"):
        unit.activate()


def test_boot_messages_come_from_the_journal() -> None:
    """Only the daemon's own lines, only since the given time; no journal is no message."""
    unit, run = _unit((0, "ModuleNotFoundError\n"))
    refused, _ = _unit((1, "No journal files were found"))

    assert unit.boot_messages(12.7) == "ModuleNotFoundError\n"
    assert refused.boot_messages(12.7) == ""
    (line,) = run.lines
    assert line.startswith("journalctl --user-unit=anyclaude.service --identifier=anyclauded ")
    assert "--since=@12 " in line
