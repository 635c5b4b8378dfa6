"""`anyclaudectl service` as processes, with a `systemctl` that keeps a unit's state in a file."""

import asyncio
import json
import os
import select
import sys
from pathlib import Path
from unittest import mock

import pytest

from anyclaude.cli.command import CommandError
from anyclaude.control.v1 import control_pb2
from anyclaude.launcher.ready import reach
from anyclaude.runtime.paths import find_paths
from tests.integration.cli.conftest import Commands, ready_status
from tests.integration.cli.scripted_control import ScriptedControl
from tests.terminal_process import TerminalProcess
from tests.waiting import until

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="launchctl is real there; see docs/mac-checks.md"
)

# Records its command lines and whether the service runs; the pid is the test's own, whose socket
# answers.
_FAKE_SYSTEMCTL = """
import pathlib, sys
here = pathlib.Path(__file__).parent
assert sys.argv[1] == "--user", sys.argv
verb = sys.argv[2]
running = here / "running"
with (here / "commands").open("a") as log:
    log.write(" ".join(sys.argv[2:]) + chr(10))
if verb in ("start", "restart"):
    running.touch()
    if (here / "started").exists():
        (here / "started").write_text(verb + chr(10))
if verb == "stop" or "--now" in sys.argv:
    running.unlink(missing_ok=True)
if verb == "show":
    up = running.exists()
    print("LoadState=" + ("loaded" if (here / "../xdg/systemd/user").is_dir() else "not-found"))
    print("ActiveState=" + ("active" if up else "inactive"))
    print("MainPID=" + ("{pid}" if up else "0"))
"""


@pytest.fixture(autouse=True)
def _systemctl(commands: Commands) -> None:
    commands.put_program("systemctl", _FAKE_SYSTEMCTL.replace("{pid}", str(os.getpid())))


def _unit(commands: Commands) -> Path:
    return commands.home / "xdg" / "systemd" / "user" / "anyclaude.service"


def _changes(commands: Commands) -> list[str]:
    """The changing commands that systemctl got since the last call."""
    log = commands.bin / "commands"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if not line.startswith("show")]


def _is_up(commands: Commands) -> None:
    """Makes the service manager and the socket agree: the test itself plays the daemon."""
    (commands.bin / "running").touch()


def test_install_is_idempotent(commands: Commands, control: ScriptedControl) -> None:
    """The first install writes and starts the unit; a second one changes and restarts nothing."""
    _is_up(commands)
    first = commands.ctl("service", "install", "--json")
    commands_run = _changes(commands)
    second = commands.ctl("service", "install", "--json")

    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["changed"] is True
    assert commands_run == [
        "daemon-reload",
        "enable anyclaude.service",
        "restart anyclaude.service",
    ]
    assert json.loads(second.stdout)["changed"] is False
    assert _changes(commands) == []
    text = _unit(commands).read_text()
    assert str(Path(sys.executable).parent / "anyclauded") in text
    assert f"ANYCLAUDE_HOME={commands.home}/ac" in text


def test_install_records_the_shell(commands: Commands, control: ScriptedControl) -> None:
    """Model and port of the shell are written to the config, keys never; then it restarts."""
    _is_up(commands)
    commands.ctl("service", "install")
    _changes(commands)
    commands.environ |= {
        "ANYCLAUDE_PORT": "50003",
        "MLX_MODEL_PATH": "/models/m",
        "ANTHROPIC_API_KEY": "sk-real",
    }

    done = commands.ctl("service", "install")

    text = commands.config_file.read_text()
    assert "port = 50003" in text
    assert 'path = "/models/m"' in text
    assert "sk-real" not in text + _unit(commands).read_text()
    assert "Recorded MLX_MODEL_PATH as model.path" in done.stderr
    assert _changes(commands) == ["restart anyclaude.service"]


def test_restart(commands: Commands, control: ScriptedControl) -> None:
    """`service restart` restarts an installed service and waits until it answers."""
    missing = commands.ctl("service", "restart")
    _is_up(commands)
    commands.ctl("service", "install")
    _changes(commands)

    done = commands.ctl("service", "restart")

    assert missing.returncode == 5
    assert done.stdout == f"anyclauded runs as pid {os.getpid()}.\n"
    assert _changes(commands) == ["restart anyclaude.service"]


def test_install_checks_before_it_changes(commands: Commands, control: ScriptedControl) -> None:
    """An invalid value is refused before anything is written; exit 1."""
    commands.environ["ANYCLAUDE_PORT"] = "many"

    done = commands.ctl("service", "install")

    assert done.returncode == 1
    assert "ANYCLAUDE_PORT" in done.stderr
    assert not _unit(commands).exists()
    assert not commands.config_file.exists()


def test_install_beside_a_daemon_started_by_hand(
    commands: Commands, control: ScriptedControl
) -> None:
    """A daemon that is not the service is named, with how to stop it; exit 5."""
    done = commands.ctl("service", "install")

    assert done.returncode == 5
    assert f"pid {os.getpid()}" in done.stderr
    assert "anyclaudectl shutdown" in done.stderr
    assert not _unit(commands).exists()


def test_another_daemon_answers_after_the_start(
    commands: Commands, control: ScriptedControl
) -> None:
    """Install fails if another process responds on the socket; exit 5."""
    _is_up(commands)
    status = ready_status()
    status.pid = 1
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    done = commands.ctl("service", "install")

    assert done.returncode == 5
    assert "pid 1" in done.stderr


def test_start_stop_status_uninstall(commands: Commands, control: ScriptedControl) -> None:
    """An installed service is started, stopped and removed; status exits with 0, 3 and 4."""
    not_installed = commands.ctl("service", "status")
    _is_up(commands)
    commands.ctl("service", "install")
    running = commands.ctl("service", "status", "--json")
    stopped = commands.ctl("service", "stop")
    not_running = commands.ctl("service", "status")
    again = commands.ctl("service", "stop", "--json")
    removed = commands.ctl("service", "uninstall", "--json")

    assert not_installed.returncode == 4
    assert running.returncode == 0
    assert json.loads(running.stdout)["pid"] == os.getpid()
    assert stopped.returncode == 0
    assert not_running.returncode == 3
    assert json.loads(again.stdout)["was_running"] is False
    assert json.loads(removed.stdout)["removed"] is True
    assert not _unit(commands).exists()
    assert _changes(commands)[-2:] == ["disable --now anyclaude.service", "daemon-reload"]


def test_verbs_without_an_installed_service(commands: Commands) -> None:
    """`start` and `stop` say how to install, exit 5; `uninstall` has nothing to do, exit 0."""
    for verb in ("start", "stop"):
        done = commands.ctl("service", verb)
        assert done.returncode == 5
        assert "anyclaudectl service install" in done.stderr
    _unit(commands).parent.parent.parent.mkdir(parents=True, exist_ok=True)
    assert commands.ctl("service", "uninstall").returncode == 0


def test_no_service_manager_exits_5(commands: Commands) -> None:
    """Without systemctl the message says how to run the daemon by hand; exit 5."""
    (commands.bin / "systemctl").unlink()

    done = commands.ctl("service", "status")

    assert done.returncode == 5
    assert "make run" in done.stderr


def test_install_warns_of_protected_folders(commands: Commands, control: ScriptedControl) -> None:
    """On a Mac a model in Documents is pointed out, in words and in JSON, and installed anyway."""
    # The job is found with the test's pid, and `bootout` has nothing to remove.
    commands.put_program(
        "launchctl",
        f"import sys; print('pid = {os.getpid()}'); sys.exit('bootout' in sys.argv and 3)",
    )
    model = commands.home / "Documents" / "model"
    commands.environ |= {"HOME": str(commands.home), "ANYCLAUDE_MODEL": str(model)}

    with mock.patch("anyclaude.cli.verbs.service.sys", mock.Mock(platform="darwin")):
        done = commands.ctl("service", "install", "--json")

    assert done.returncode == 0, done.stderr
    assert f"Warning: The model {model} is in Documents" in done.stderr
    (warning,) = json.loads(done.stdout)["warnings"]
    assert str(model) in warning


def test_wait_quotes_a_service_that_does_not_start(commands: Commands) -> None:
    """Without an answer, `wait` says what the installed service printed; exit 6 as before."""
    _unit(commands).parent.mkdir(parents=True)
    _unit(commands).touch()
    commands.put_program("journalctl", "print('Cannot listen on 127.0.0.1 port 49152')")

    done = commands.ctl("wait", "--timeout", "0")

    assert done.returncode == 6
    assert "the service printed:\n  Cannot listen on 127.0.0.1 port 49152" in done.stderr


def test_launcher_quotes_a_service_that_does_not_start(commands: Commands) -> None:
    """`anyclaude` starts the service and, without an answer, says what the service printed."""
    _unit(commands).parent.mkdir(parents=True)
    _unit(commands).touch()
    commands.put_program("journalctl", "print('No module named anyclaude')")

    with (
        mock.patch("anyclaude.cli.service.lifecycle._ANSWER_SECONDS", 0.0),
        mock.patch.dict(os.environ, commands.environ, clear=True),
        pytest.raises(CommandError, match="the service printed:\n  No module named anyclaude"),
    ):
        reach(find_paths(commands.environ), commands.environ)

    assert "start anyclaude.service" in _changes(commands)


def test_launcher_starts_an_installed_service(commands: Commands) -> None:
    """`anyclaude` starts the installed service, waits for it, and continues."""
    _unit(commands).parent.mkdir(parents=True)
    _unit(commands).touch()
    commands.put_program("claude", "import sys; sys.exit(42)")
    started = commands.bin / "started"
    os.mkfifo(started)
    with os.fdopen(os.open(started, os.O_RDWR)) as signal_of_start:
        launching = commands.start("anyclaude.launcher")
        assert select.select([signal_of_start], [], [], 30)[0]
    # Serves the control socket as the started daemon would, in the pid that systemctl reports.
    control = ScriptedControl(commands.socket_path)
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=ready_status())
    try:
        _, stderr = launching.communicate(timeout=30)
    finally:
        control.close()

    assert launching.returncode == 42, stderr
    assert "Starting the anyclaude service" in stderr


def test_the_launcher_installs_a_missing_service_for_a_person(commands: Commands) -> None:
    """At a terminal `anyclaude` offers to install the service, and continues once it runs."""
    commands.put_program("claude", "import sys; sys.exit(42)")
    command = [sys.executable, "-m", "anyclaude.launcher", "--no-chooser"]
    with TerminalProcess(command, commands.environ, commands.home) as terminal:
        terminal.wait_for("Install and start it now? [y/N] ")
        terminal.type("y\n")
        asyncio.run(until((commands.bin / "running").exists))
        control = ScriptedControl(commands.socket_path)
        control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=ready_status())
        try:
            code, seen = terminal.wait_end()
        finally:
            control.close()

    assert code == 42, seen
    assert _unit(commands).exists()


def test_the_launcher_installs_nothing_unless_told(commands: Commands) -> None:
    """Enter is no: nothing is installed, and the message says how to do it."""
    command = [sys.executable, "-m", "anyclaude.launcher", "--no-chooser"]
    commands.put_program("claude", "")
    with TerminalProcess(command, commands.environ, commands.home) as terminal:
        terminal.wait_for("Install and start it now? [y/N] ")
        terminal.type("\n")
        code, seen = terminal.wait_end()

    assert code == 3
    assert "anyclaudectl service install" in seen
    assert not _unit(commands).exists()
