"""Each planted problem is found by `doctor`, and is gone once its fix was run."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from anyclaude.cli.doctor.checks import CHECKS, examine
from anyclaude.cli.doctor.finding import Examined, Finding, Level, run_check, run_command
from anyclaude.cli.service.launchd import Launchd
from anyclaude.cli.service.manager import Program
from anyclaude.control.v1 import control_pb2
from anyclaude.mlx.demo import MODEL_PATH
from anyclaude.worker.v1 import worker_pb2
from tests.integration.cli.conftest import Commands, ready_status
from tests.integration.cli.scripted_control import ScriptedControl
from tests.unit.cli.recorded_commands import RecordedCommands
from tests.unprivileged import bound_by_modes

# Holds the lock of the daemon's home, as a daemon does that does not answer.
_HOLDS_LOCK = """
import fcntl, os, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print(os.getpid(), file=lock, flush=True)
    print("locked", flush=True)
    sys.stdin.read()
"""
_LISTENS = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""
# Stands for npm, and for a Claude Code that can update itself.
_NPM = """
import pathlib
claude = pathlib.Path(__file__).with_name("claude")
claude.write_text("#!/bin/sh\\necho 2.1.300 '(Claude Code)'\\n")
claude.chmod(0o755)
"""
_OLD_CLAUDE = """
import pathlib, sys
if sys.argv[1] == "update":
    pathlib.Path(__file__).write_text("#!/bin/sh\\necho 2.1.300 '(Claude Code)'\\n")
else:
    print("1.0.44 (Claude Code)")
"""
# Stands for the programs of a fix that starts the daemon anew.
_RECORDS_BLAS = """
import os, pathlib
pathlib.Path("preloaded").write_text(os.environ.get("LD_PRELOAD", ""))
"""
_SYSTEMCTL = """
import sys
if sys.argv[2] == "show":
    print("LoadState=loaded\\nActiveState=active\\nMainPID={pid}")
"""

Change = Callable[[Examined], Examined]


class Doctor:
    """Runs checks and their fixes in the environment of the commands under test."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        commands.put_program(
            "anyclaudectl", "import sys\nfrom anyclaude.cli.main import main\nsys.exit(main())\n"
        )
        commands.put_program("systemctl", _SYSTEMCTL.replace("{pid}", str(os.getpid())))
        commands.environ["PATH"] += f":{os.environ['PATH']}"

    def look(self, name: str, change: Change = lambda examined: examined) -> list[Finding]:
        """The findings of one check that are not ok."""
        environ = self.commands.environ
        with pytest.MonkeyPatch.context() as patch:
            for variable in set(os.environ) - set(environ):
                patch.delenv(variable)
            for variable, value in environ.items():
                patch.setenv(variable, value)
            found = run_check(CHECKS[name], change(examine(dict(environ))))
        return [finding for finding in found if finding.level is not Level.OK]

    def the_only(self, name: str, change: Change = lambda examined: examined) -> Finding:
        (finding,) = self.look(name, change)
        return finding

    def apply(self, finding: Finding) -> None:
        """Runs the fix in a shell; what it changes in the shell's environment stays."""
        done = subprocess.run(
            ["/bin/sh", "-ec", f"{finding.fix}\nenv -0"],
            env=self.commands.environ,
            cwd=self.commands.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        *_, environment = done.stdout.rpartition("\n")
        entries = (entry.partition("=") for entry in environment.split("\0") if entry)
        self.commands.environ = {name: value for name, _, value in entries}


@pytest.fixture
def doctor(commands: Commands) -> Doctor:
    return Doctor(commands)


def _config(commands: Commands, text: str) -> None:
    _make_private(commands.config_file.parent)
    commands.config_file.write_text(text)


def _make_private(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def test_a_service_that_is_stopped(doctor: Doctor, request: pytest.FixtureRequest) -> None:
    """The fix starts an installed service; without one, it installs it."""
    not_installed = doctor.the_only("service")
    unit = doctor.commands.home / "xdg/systemd/user/anyclaude.service"
    _make_private(unit.parent)
    unit.write_text(f'ExecStart="{sys.executable}"\n')
    stopped = doctor.the_only("service")

    request.getfixturevalue("control")
    doctor.apply(stopped)

    assert not_installed.level is stopped.level is Level.PROBLEM
    assert not_installed.fix == "anyclaudectl service install"
    assert stopped.fix == "anyclaudectl service start"
    assert doctor.look("service") == []


def test_a_worker_that_was_given_up(doctor: Doctor, control: ScriptedControl) -> None:
    """What `status` calls a problem is one here, and the fix restarts the worker."""
    status = ready_status()
    status.problems.append("The mlx worker does not start.")
    status.workers[1].state = control_pb2.WORKER_STATE_FATAL
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    doctor.apply(doctor.the_only("service"))

    assert [call.name for call in control.requests("RestartWorker")] == ["mlx"]


def test_a_daemon_that_is_stuck(doctor: Doctor) -> None:
    """A process that has the lock and does not answer is named, and can be killed."""
    lock = _make_private(doctor.commands.state) / "daemon.lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS_LOCK, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stuck:
        assert stuck.stdout is not None
        stuck.stdout.readline()

        finding = doctor.the_only("lock")
        doctor.apply(finding)
        stuck.wait()

    assert finding.fix == f"kill {stuck.pid}"
    assert doctor.look("lock") == []


def test_a_daemon_of_another_version(doctor: Doctor, control: ScriptedControl) -> None:
    """After an upgrade the old daemon still runs."""
    status = ready_status()
    status.version = "0.0.1"
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    finding = doctor.the_only("version")
    status.version = metadata.version("anyclaude")
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    assert finding.fix == "anyclaudectl shutdown"
    assert doctor.look("version") == []


def test_a_service_of_a_removed_installation(doctor: Doctor, control: ScriptedControl) -> None:
    """The unit names a program that is gone; installing again names the present one."""
    unit = doctor.commands.home / "xdg/systemd/user/anyclaude.service"
    _make_private(unit.parent)
    unit.write_text('[Service]\nExecStart="/gone/bin/anyclauded"\n')

    finding = doctor.the_only("installed service")
    doctor.apply(finding)

    assert "/gone/bin/anyclauded" in finding.what
    assert doctor.look("installed service") == []


def test_a_launchd_agent_of_a_removed_installation(doctor: Doctor, tmp_path: Path) -> None:
    """The same on a Mac, from the property list."""
    agent = Launchd(home=tmp_path, uid=501, run=RecordedCommands(lambda _: (0, "")))
    agent.file.parent.mkdir(parents=True)
    agent.file.write_bytes(agent.render(Program(Path("/gone/anyclauded"), {}, tmp_path / "boot")))

    finding = doctor.the_only(
        "installed service", lambda examined: dataclasses.replace(examined, manager=agent)
    )

    assert "/gone/anyclauded" in finding.what


@pytest.mark.parametrize("name", ["program", "rapportd"])
@pytest.mark.skipif(sys.platform == "darwin", reason="a Python there runs under another name")
def test_a_port_that_is_taken(doctor: Doctor, tmp_path: Path, name: str) -> None:
    """The owner is named, with the advice not to stop one of macOS; the fix is another port."""
    program = tmp_path / name
    program.symlink_to(Path(sys.executable).resolve())
    with subprocess.Popen(
        [program, "-S", "-c", _LISTENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        _config(doctor.commands, f"[server]\nport = {int(owner.stdout.readline())}\n")
        finding = doctor.the_only("port")
        doctor.apply(finding)
        owner.kill()

    assert f"pid {owner.pid} (" in finding.what
    assert ("do not stop it" in finding.what) == (name == "rapportd")
    assert doctor.look("port") == []


def test_a_setting_that_the_daemon_refuses(doctor: Doctor) -> None:
    """Values, keys and modes that the daemon would refuse are each a problem with their source."""
    _config(doctor.commands, 'mode = "nonesuch"\n')
    unknown_mode = doctor.the_only("settings")
    _config(doctor.commands, "[server]\n# The usual port is taken.\nport = 99999\n")
    wrong_value = doctor.the_only("settings")

    done = doctor.commands.ctl("config", "set", "server.port", "50123")

    assert "nonesuch" in unknown_mode.what
    assert "server.port = 99999" in wrong_value.what
    assert done.returncode == 0
    assert "# The usual port is taken.\nport = 50123" in doctor.commands.config_file.read_text()
    assert doctor.look("settings") == []


def test_a_variable_that_nothing_reads(doctor: Doctor) -> None:
    """A misspelt variable is named with the one that was meant."""
    doctor.commands.environ["ANYCLAUDE_LOGLEVEL"] = "debug"

    finding = doctor.the_only("variables")
    doctor.apply(finding)

    assert "Did you mean ANYCLAUDE_LOG_LEVEL?" in finding.what
    assert doctor.look("variables") == []


def test_a_variable_that_the_daemon_was_started_without(
    doctor: Doctor, control: ScriptedControl
) -> None:
    """A model of this shell that the running daemon does not have is named."""
    doctor.commands.environ["ANYCLAUDE_MODEL"] = "/models/new"

    finding = doctor.the_only("other settings")
    control.answers["GetConfig"] = control_pb2.GetConfigResponse(
        entries=[control_pb2.ConfigEntry(key="model.path", value_json='"/models/new"')]
    )

    assert "ANYCLAUDE_MODEL" in finding.what
    # No service is installed, so a daemon in a terminal is ended.
    assert finding.fix == "anyclaudectl shutdown"
    assert doctor.look("other settings") == []


@pytest.mark.parametrize("name", ["ANYCLAUDE_PORT", "ANYCLAUDE__SERVER__PORT"])
def test_a_value_that_the_environment_hides(doctor: Doctor, name: str) -> None:
    """A value of the file has no effect while a variable sets the same key; the fix unsets it."""
    _config(doctor.commands, "[server]\nport = 50001\n")
    doctor.commands.environ[name] = "50002"

    finding = doctor.the_only("hidden settings")
    doctor.apply(finding)

    assert "server.port" in finding.what
    assert doctor.look("hidden settings") == []


def test_a_proxy_and_a_foreign_address(doctor: Doctor, control: ScriptedControl) -> None:
    """A shell that would send prompts elsewhere is mended by `anyclaudectl env`."""
    doctor.commands.environ |= {
        "HTTP_PROXY": "http://proxy.example:3128",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:8080",
    }

    proxy, address = doctor.the_only("proxy"), doctor.the_only("address")
    doctor.apply(proxy)

    assert "proxy" in proxy.why
    assert proxy.fix == address.fix
    assert doctor.look("proxy") == doctor.look("address") == []


def test_no_token_file(doctor: Doctor) -> None:
    """The fix makes a token that only this user can read."""
    file = doctor.commands.home / "token"
    _config(doctor.commands, f'[server]\nauth_token_file = "{file}"\n')

    doctor.apply(doctor.the_only("named files"))

    assert len(file.read_text().strip()) == 64
    assert doctor.look("named files") == doctor.look("permissions") == []


@pytest.mark.parametrize("program", [{"npm": _NPM}, {"claude": _OLD_CLAUDE}])
def test_no_claude_code_or_an_old_one(doctor: Doctor, program: dict[str, str]) -> None:
    """A missing or an outdated Claude Code is named with the command that mends it."""
    doctor.commands.environ["PATH"] = f"{doctor.commands.bin}:/usr/bin:/bin"
    for name, text in program.items():
        doctor.commands.put_program(name, text)

    doctor.apply(doctor.the_only("claude code"))

    assert doctor.look("claude code") == []


def test_a_server_that_does_not_answer(doctor: Doctor, control: ScriptedControl) -> None:
    """The mode is named with its reason, and the fix switches to the local model."""
    lmstudio = control_pb2.Mode(name="lmstudio", reason="Connection refused. Start LM Studio.")
    own = control_pb2.Mode(name="mlx-lm", ready=True)
    control.answers["GetMode"] = control_pb2.GetModeResponse(mode="lmstudio", modes=[lmstudio, own])

    finding = doctor.the_only("servers")
    doctor.apply(finding)
    control.answers["GetMode"] = control_pb2.GetModeResponse(mode="mlx-lm", modes=[lmstudio, own])

    assert "Start LM Studio" in finding.what
    assert [call.mode for call in control.requests("SetMode")] == ["mlx-lm"]
    assert doctor.look("servers") == []


def test_a_model_that_is_missing(doctor: Doctor) -> None:
    """The fix names another folder."""
    _config(doctor.commands, '[model]\npath = "/gone/model"\n')

    finding = doctor.the_only("model")
    doctor.apply(dataclasses.replace(finding, fix=finding.fix.replace("FOLDER", str(MODEL_PATH))))

    assert "There is no model at /gone/model" in finding.what
    assert "no model" not in str(doctor.look("model"))


def test_a_model_that_may_not_be_read(doctor: Doctor) -> None:
    """The fix makes it readable."""

    def unprivileged(examined: Examined) -> Examined:
        return dataclasses.replace(examined, run=lambda c: run_command(bound_by_modes(c)))

    folder = doctor.commands.home / "model"
    folder.mkdir()
    for file in MODEL_PATH.iterdir():
        (folder / file.name).symlink_to(file)
    folder.chmod(0)
    _config(doctor.commands, f'[model]\npath = "{folder}"\n')

    finding = doctor.the_only("model", unprivileged)
    doctor.apply(finding)

    assert finding.fix.startswith("chmod")
    assert "cannot be read" not in str(doctor.look("model", unprivileged))


def _reports(**figures: int) -> Change:
    """The recorded report of a model that suits Claude Code, with these sizes."""
    report = {
        "weights_bytes": 17_200_000_000,
        "kv_bytes_at_claude_code_prompt": 1_800_000_000,
        "working_set_bytes": 0,
        "advice": [],
    }
    printed = json.dumps(report | figures)

    def run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, 0, printed, "")

    return lambda examined: dataclasses.replace(examined, run=run)


@pytest.fixture
def gigabytes_48(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 48 GB."""
    memory = psutil.virtual_memory()._replace(total=48_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def test_a_model_that_does_not_fit(doctor: Doctor, gigabytes_48: None) -> None:
    """The numbers are named, and a smaller model is fine."""
    _config(doctor.commands, '[model]\npath = "/models/large"\n')

    finding = doctor.the_only("model", _reports(weights_bytes=60_000_000_000))

    assert finding.level is Level.PROBLEM
    assert "60.0 GB" in finding.what
    assert "anyclaudectl config set model.path" in finding.fix
    assert doctor.look("model", _reports()) == []


def test_a_model_near_the_limit_of_metal(doctor: Doctor, gigabytes_48: None) -> None:
    """A model near the working set is a warning; the limit that the fix sets makes it fit."""
    _config(doctor.commands, '[model]\npath = "/models/large"\n')
    sizes = {"weights_bytes": 34_000_000_000, "working_set_bytes": 36_000_000_000}

    finding = doctor.the_only("model", _reports(**sizes))
    limit = int(finding.fix.rpartition("=")[2]) * 1024**2

    assert finding.level is Level.WARNING
    assert finding.fix.startswith("sudo sysctl iogpu.wired_limit_mb=")
    assert limit < 48_000_000_000
    assert doctor.look("model", _reports(**sizes | {"working_set_bytes": limit})) == []


def test_a_machine_short_of_memory(doctor: Doctor, control: ScriptedControl) -> None:
    """Pressure on the machine is named with what is available, and caches can be evicted."""
    status = ready_status()
    status.memory.pressure = worker_pb2.MEMORY_PRESSURE_CRITICAL
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    finding = doctor.the_only("memory")
    doctor.apply(dataclasses.replace(finding, fix=finding.fix.rpartition(": ")[2]))
    status.memory.pressure = worker_pb2.MEMORY_PRESSURE_NORMAL
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    assert control.requests("PruneCaches")
    assert doctor.look("memory") == []


def test_a_slow_blas(doctor: Doctor, control: ScriptedControl) -> None:
    """The reference BLAS of MLX's wheel is a warning; the fix restarts the daemon with another."""
    status = ready_status()
    status.blas = "reference BLAS"
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)
    for program in ("sudo", "anyclauded"):
        doctor.commands.put_program(program, _RECORDS_BLAS)

    assert "anyclaudectl doctor" in doctor.commands.ctl("status").stdout
    doctor.apply(doctor.the_only("blas"))
    status.blas = (doctor.commands.home / "preloaded").read_text()
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    assert status.blas == "libopenblas.so.0"
    assert doctor.look("blas") == []


def test_files_that_others_can_read(doctor: Doctor) -> None:
    """A folder and a key file that others may read are each made private."""
    key = doctor.commands.home / "key"
    key.touch(0o644)
    _config(doctor.commands, f'[upstreams.openrouter]\napi_key_file = "{key}"\n')
    _make_private(doctor.commands.state).chmod(0o755)

    findings = doctor.look("permissions")
    for finding in findings:
        doctor.apply(finding)

    assert [finding.fix.split()[:2] for finding in findings] == [["chmod", "700"], ["chmod", "600"]]
    assert doctor.look("permissions") == []


def test_a_budget_larger_than_the_disk(doctor: Doctor) -> None:
    """The fix sets a budget that fits."""
    _config(doctor.commands, "[cache]\ndisk_limit_bytes = 1_000_000_000_000_000\n")

    doctor.apply(doctor.the_only("disk"))

    assert doctor.look("disk") == []


def test_caches_that_could_not_be_written(doctor: Doctor, control: ScriptedControl) -> None:
    """The error of the worker is shown."""
    status = ready_status()
    status.disk.last_error = "No space left on device"
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    assert "No space left on device" in doctor.the_only("writing").what


def test_records_that_nothing_reads(doctor: Doctor) -> None:
    """Corrupt records and those of an older version are each removed by the fix."""
    store = doctor.commands.home / "ac/cache/kv"
    for name in ("quarantine/a.safetensors", "model/ab/abcd.kv", "model/ab/abcd.safetensors"):
        _make_private((store / name).parent)
        (store / name).write_bytes(b"x" * 1000)

    findings = doctor.look("old records")
    for finding in findings:
        doctor.apply(finding)

    assert len(findings) == 2
    assert doctor.look("old records") == []
    assert [file.name for file in store.rglob("*.*")] == ["abcd.safetensors"]


def test_a_clock_that_is_behind(doctor: Doctor) -> None:
    """Files of a day that has not come yet show it."""

    def at(seconds: float) -> Change:
        return lambda examined: dataclasses.replace(examined, now=seconds)

    _make_private(doctor.commands.log_file.parent)
    doctor.commands.log_file.touch()
    written = doctor.commands.log_file.stat().st_mtime

    finding = doctor.the_only("clock", at(written - 86_400))

    assert "1d 0h behind" in finding.what
    assert "set-ntp" in finding.fix
    assert doctor.look("clock", at(written + 60)) == []


def test_a_log_that_grows(doctor: Doctor) -> None:
    """A log that nothing rotates is emptied by the fix."""
    boot = _make_private(doctor.commands.log_file.parent) / "anyclauded.boot.log"
    with boot.open("wb") as log:
        log.truncate(10**9)

    doctor.apply(doctor.the_only("logs"))

    assert boot.stat().st_size == 0
    assert doctor.look("logs") == []


@pytest.fixture
def few_files() -> Iterator[Callable[[], None]]:
    """A process that may open 256 files; calling it gives the old limit back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files(doctor: Doctor, few_files: Callable[[], None]) -> None:
    """The limit of macOS for shells is named."""
    finding = doctor.the_only("open files")
    few_files()

    assert finding.fix == "ulimit -n 8192"
    assert doctor.look("open files") == []


def test_a_python_under_rosetta(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """An x86_64 Python on a Mac cannot run MLX."""
    real = os.uname()

    def on(machine: str) -> Change:
        fake = os.uname_result((*real[:4], machine))
        monkeypatch.setattr(os, "uname", lambda: fake)
        return lambda examined: dataclasses.replace(examined, platform="darwin")

    assert "Rosetta" in doctor.the_only("python", on("x86_64")).what
    assert doctor.look("python", on("arm64")) == []


def test_a_check_that_fails_is_a_finding() -> None:
    """An error in a check is reported, and does not end the others."""

    def broken(_: Any) -> list[Finding]:
        raise ValueError("no such thing")

    (finding,) = run_check(broken, None)  # type: ignore[arg-type]

    assert finding.level is Level.PROBLEM
    assert "ValueError: no such thing" in finding.what


def test_the_whole_list(doctor: Doctor, control: ScriptedControl) -> None:
    """`doctor` prints every finding with its fix, as JSON and for people; exit 1 with a problem."""
    doctor.commands.put_program("claude", "print('2.1.300 (Claude Code)')\n")
    doctor.commands.environ["ANYCLAUDE_MODLE"] = "x"
    control.answers["GetMode"] = control_pb2.GetModeResponse(
        mode="mlx-lm", modes=[control_pb2.Mode(name="mlx-lm", ready=True)]
    )
    for folder in (doctor.commands.socket_path.parent, doctor.commands.config_file.parent):
        folder.chmod(0o700)
    sound = doctor.commands.ctl("doctor", "--json")
    _make_private(doctor.commands.state).chmod(0o777)
    broken = doctor.commands.ctl("doctor")

    document = json.loads(sound.stdout)
    assert sound.returncode == 0, sound.stdout
    assert document["healthy"] is True
    levels = {finding["check"]: finding["level"] for finding in document["findings"]}
    assert levels["variables"] == "warning"
    assert levels["service"] == levels["python"] == levels["claude code"] == "ok"
    assert broken.returncode == 1
    assert f"Fix: chmod 700 {doctor.commands.state}" in broken.stdout


def test_a_bug_report_without_keys_and_names(doctor: Doctor, control: ScriptedControl) -> None:
    """The archive has checks, status, settings, requests and log, and neither keys nor names."""
    commands = doctor.commands
    key = commands.home / "key"
    key.write_text("key-of-the-file\n")
    commands.environ["OPENROUTER_API_KEY"] = "key-of-the-environment"
    upstream = f'api_key_file = "{key}"\nheaders = {{ x-team = "key-of-the-header" }}\n'
    upstream += 'environment = { HERS = "key-of-the-server" }\napi_key_env = "OWN_NAME"\n'
    upstream += "command = ['serve', '--api-key=key-of-the-command']\n"
    commands.environ["OWN_NAME"] = "key-of-the-variable"
    search = commands.home / "search-key"
    search.write_text("key-of-the-search")
    upstream += f'[search]\napi_key_file = "{search}"\n'
    _config(commands, f"[upstreams.mine]\nbase_url = 'http://127.0.0.1:1'\n{upstream}")
    _make_private(commands.log_file.parent)
    commands.log_file.write_text(
        f'{{"event": "sent key-of-the-file"}}\nkey-of-the-search\n'
        f"key-of-the-variable\nTraceback {commands.home}/x sk-ant-key-of-a-crash\n"
    )
    loaded = examine(commands.environ).loaded
    assert loaded is not None
    control.answers["GetConfig"] = control_pb2.GetConfigResponse(
        entries=[
            control_pb2.ConfigEntry(key=name, value_json=json.dumps(value))
            for name, value, _ in loaded.entries()
        ]
    )

    done = commands.ctl("bugreport", "report.tar.gz", "--json")
    again = commands.ctl("bugreport", "report.tar.gz")

    file = commands.home / "report.tar.gz"
    with tarfile.open(file) as archive:
        streams = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        texts = {name: stream.read().decode() for name, stream in streams.items() if stream}
    assert done.returncode == 0, done.stderr
    assert {name.removeprefix("anyclaude-bugreport/") for name in texts} == {
        *json.loads(done.stdout)["members"]
    }
    everything = "".join(texts.values())
    assert "key-of" not in everything
    assert str(commands.home) not in everything
    assert "sent ***" in texts["anyclaude-bugreport/logs/anyclauded.log"]
    assert '"x-team": "***"' in texts["anyclaude-bugreport/settings.json"]
    assert '"readiness": "ready"' in texts["anyclaude-bugreport/status.json"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert again.returncode == 5
    assert "exists" in again.stderr
