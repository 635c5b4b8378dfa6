"""What the service keeps of the shell, and what an error says of a start that failed."""

import os
from pathlib import Path

import pytest

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.service.launchd import Launchd
from anyclaude.cli.service.lifecycle import find_program, start
from anyclaude.cli.service.manager import Program
from anyclaude.runtime.paths import Paths, find_paths
from tests.unit.cli.recorded_commands import FakeTime, RecordedCommands


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "anyclauded").touch()
    return folder


def test_the_service_keeps_the_shells_certificates(scripts: Path) -> None:
    """A private CA that is trusted in the shell is trusted by the service; keys stay out."""
    trusted = {"SSL_CERT_FILE": "/ca.pem", "SSL_CERT_DIR": "/certs"}
    environ = trusted | {"ANTHROPIC_API_KEY": "sk-real"}

    program = find_program(scripts, find_paths({"ANYCLAUDE_HOME": "/x"}), environ)

    assert {**program.environment} == {**program.environment, **trusted}
    assert "sk-real" not in str(program)


def _start(paths: Paths, user_home: Path, boot_messages: str) -> CommandError:
    """The error of a start under launchd of a daemon that prints this and ends."""
    run, time = RecordedCommands(lambda _: (0, "state = spawn scheduled")), FakeTime()
    agent = Launchd(home=user_home, uid=501, run=run, clock=time.clock)
    boot_log = paths.logs / "anyclauded.boot.log"
    agent.file.parent.mkdir(parents=True)
    agent.file.write_bytes(agent.render(Program(Path("/v/bin/anyclauded"), {}, boot_log)))
    boot_log.write_text(boot_messages)
    with pytest.raises(CommandError) as caught:
        start(agent, paths, time.clock)
    return caught.value


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = find_paths({"ANYCLAUDE_HOME": str(tmp_path / "ac")})
    found.create()
    return found


def test_a_start_that_fails_quotes_the_boot_log(paths: Paths, tmp_path: Path) -> None:
    """Its last ten lines stand below the error, and the usual cause on a Mac is explained."""
    lines = [f"line {number}" for number in range(20)]
    reason = "PermissionError: [Errno 1] Operation not permitted: '/Users/you/Documents/a/pyvenv'"

    error = _start(paths, tmp_path, "\n".join([*lines, reason, ""]))

    assert error.code is ExitCode.TIMEOUT
    assert "The service was started but does not answer." in error.message
    quoted = [line for line in error.message.splitlines() if line.startswith("  ")]
    assert quoted == [f"  {line}" for line in [*lines[11:], reason]]
    assert "macOS keeps services from Documents" in error.message


def test_old_boot_messages_are_not_quoted(paths: Paths, tmp_path: Path) -> None:
    """A daemon whose own log is newer has started since: what it printed then explains nothing."""
    paths.log_file.touch()
    os.utime(paths.log_file, (2e9, 2e9))

    error = _start(paths, tmp_path, "an error of last week\n")

    assert "last week" not in error.message
