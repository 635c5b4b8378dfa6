"""A machine without a checkout: the wheel is installed, its service runs, a launch is answered."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.checkout import ROOT
from tests.integration.service import WAIT_SECONDS, wait_ended

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="launchctl is real there; see docs/mac-checks.md"
)

_FRESH: Final = "ANYCLAUDE_TEST_FRESH" in os.environ

# As systemd does with a unit: starts its command with its environment, and knows the pid.
_SYSTEMCTL: Final = """
import os, pathlib, re, signal, subprocess, sys
home = pathlib.Path(os.environ["HOME"])
unit = home / ".config/systemd/user/anyclaude.service"
pid = home / "pid"
verb = sys.argv[2]
if verb in ("start", "restart"):
    text = unit.read_text()
    environ = dict(line.split("=", 1) for line in re.findall('^Environment="(.+)"$', text, re.M))
    (command,) = re.findall('^ExecStart="(.+)"$', text, re.M)
    log = open(home / "output", "w")
    started = subprocess.Popen(
        [command], env={"HOME": str(home), **environ}, cwd="/", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    pid.write_text(str(started.pid))
if verb == "show":
    print("LoadState=" + ("loaded" if unit.exists() else "not-found"))
    print("ActiveState=" + ("active" if pid.exists() else "inactive"))
    print("MainPID=" + (pid.read_text() if pid.exists() else "0"))
"""
_CLAUDE: Final = """
import json, sys, urllib.request
environ = json.load(open(sys.argv[sys.argv.index("--settings") + 1]))["env"]
question = {"model": environ["ANTHROPIC_MODEL"], "max_tokens": 16,
            "messages": [{"role": "user", "content": sys.argv[-1]}]}
address = environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
headers = {"content-type": "application/json"}
request = urllib.request.Request(address, json.dumps(question).encode(), headers)
print(json.load(urllib.request.urlopen(request))["content"][0]["text"])
"""


class Machine:
    """A home folder with a tool's environment, and nothing of the checkout."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bin = home / "bin"
        self.bin.mkdir()
        self.put("systemctl", _SYSTEMCTL)
        if _FRESH and (claude := os.environ.get("ANYCLAUDE_TEST_CLAUDE")):
            (self.bin / "claude").symlink_to(claude)
        else:
            self.put("claude", _CLAUDE)

    def put(self, name: str, text: str) -> None:
        program = self.bin / name
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)

    def install(self) -> None:
        """Builds the wheel and installs it as `uv tool` and `pipx` do.

        `make fresh` resolves what it needs from the registry; else it uses this environment's.
        """
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(self.home)]
        self._must([*pip, *build, str(ROOT)])
        tool = self.home / "tool"
        self._must([sys.executable, "-m", "venv", "--without-pip", str(tool)])
        (wheel,) = self.home.glob("*.whl")
        target = ["--python", str(tool / "bin" / "python"), "install"]
        if _FRESH:
            self._must([*pip, *target, str(wheel)])
            return
        self._must([*pip, *target, "--no-deps", "--no-index", str(wheel)])
        (packages,) = tool.glob("lib/python*/site-packages")
        # Its .pth files, with which the checkout is installed here, are not read.
        (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str) -> str:
        """Runs one of the tool's commands; returns what it printed."""
        path = f"{self.home}/tool/bin:{self.bin}:/usr/bin:/bin"
        environ = {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8", "ANYCLAUDE_PORT": "0"}
        return self._must([str(self.home / "tool" / "bin" / command[0]), *command[1:]], environ)

    def stop(self) -> None:
        """Ends the daemon, whatever happened before."""
        file = self.home / "pid"
        if file.exists() and psutil.pid_exists(pid := int(file.read_text())):
            daemon = psutil.Process(pid)
            everything = [daemon, *daemon.children(recursive=True)]
            daemon.send_signal(signal.SIGTERM)
            wait_ended(everything, WAIT_SECONDS)

    def _must(self, command: list[str], environ: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=self.home,
            env=environ or dict(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * WAIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def machine() -> Iterator[Machine]:
    home = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-w-"))
    machine = Machine(home)
    yield machine
    machine.stop()
    shutil.rmtree(home)


@pytest.mark.slow(10)
def test_a_machine_without_a_checkout(machine: Machine) -> None:
    """Wheel, `service install`, `anyclaude -p`: the installed files alone answer."""
    machine.install()
    machine.run("anyclaudectl", "service", "install")
    machine.run("anyclaudectl", "wait", "--ready", "--timeout", str(WAIT_SECONDS))

    assert (
        "demo model"
        in machine.run("anyclaude", "-p", "say hello", "--allowedTools", "Bash").lower()
    )
    assert "anyclaude-demo" in machine.run("anyclaudectl", "status")
    program = psutil.Process(int((machine.home / "pid").read_text())).cmdline()
    assert str(machine.home / "tool" / "bin" / "anyclauded") in program
    where = "import anyclaude.supervisor as found; print(found.__file__)"
    assert machine.run("python", "-c", where).startswith(f"{machine.home}/tool/")
