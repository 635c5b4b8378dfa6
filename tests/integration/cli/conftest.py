"""Fixtures: a home with a short path, a scripted daemon in it, and the commands as processes."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from unittest import mock

import pytest

from anyclaude.cli.main import main
from anyclaude.control.v1 import control_pb2
from tests.integration.cli.scripted_control import ScriptedControl

_TIMEOUT_SECONDS = 60


@dataclass
class Commands:
    """Runs the commands in an environment of their own."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `anyclaudectl ARGUMENTS` inside this process, which saves the time of a start.

        What differs for a process of its own (signals, a terminal) is tested by `start` and `run`.
        """
        out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
        with (
            mock.patch.dict(os.environ, self.environ, clear=True),
            mock.patch.object(sys, "argv", ["anyclaudectl", *arguments]),
            mock.patch("anyclaude.cli.main.leave_on_interrupt"),
            contextlib.chdir(self.home),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        texts = (stream.buffer.getvalue().decode() for stream in (out, err))
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), *texts)

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self.environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )

    def start(self, module: str, *arguments: str) -> "subprocess.Popen[str]":
        """Starts a command whose output is a pipe."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=self.environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end_started(self) -> None:
        """Ends the commands that a failed test left running."""
        for process in self.started:
            process.kill()
            process.communicate()

    def put_program(self, name: str, text: str) -> Path:
        """Writes an executable script that the commands find on their PATH."""
        program = self.bin / name
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)
        return program

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    @property
    def state(self) -> Path:
        return self.home / "ac" / "state"

    @property
    def config_file(self) -> Path:
        return self.home / "ac" / "config.toml"

    @property
    def log_file(self) -> Path:
        return self.home / "ac" / "logs" / "anyclauded.log"

    @property
    def socket_path(self) -> Path:
        return self.home / "ac" / "run" / "ctl.sock"


@pytest.fixture
def commands() -> Iterator[Commands]:
    """The commands with an empty home and nothing but a private folder on PATH."""
    home = Path(tempfile.mkdtemp(prefix="ac-", dir="/tmp"))
    (home / "bin").mkdir()
    commands = Commands(
        home,
        {
            "HOME": str(home),
            "PATH": str(home / "bin"),
            "LANG": "C.UTF-8",
            "ANYCLAUDE_HOME": str(home / "ac"),
            "XDG_CONFIG_HOME": str(home / "xdg"),
        },
    )
    yield commands
    commands.end_started()
    shutil.rmtree(home)


@pytest.fixture
def control(commands: Commands) -> Iterator[ScriptedControl]:
    """A scripted daemon behind the control socket; ready until a test changes it."""
    server = ScriptedControl(commands.socket_path)
    server.answers["GetStatus"] = control_pb2.GetStatusResponse(status=ready_status())
    yield server
    server.close()


def ready_status() -> control_pb2.Status:
    """A ready service with the demo model and two workers."""
    status = control_pb2.Status(
        version="0.1.0",
        pid=os.getpid(),
        readiness=control_pb2.READINESS_READY,
        is_serving=True,
        mode="mlx-lm",
        base_url="http://127.0.0.1:49152",
        home="/home/somebody",
    )
    status.start_time.GetCurrentTime()
    status.model.id = "anyclaude-demo"
    status.model.is_demo = True
    status.model.context_window_tokens = 131_072
    status.memory.active_bytes = 3_000_000_000
    status.memory.cache_bytes = 1_500_000_000
    status.memory.cache_limit_bytes = 8_000_000_000
    for name in ("frontend", "mlx"):
        worker = status.workers.add(name=name, state=control_pb2.WORKER_STATE_READY, pid=4242)
        worker.start_time.GetCurrentTime()
        worker.ready_time.GetCurrentTime()
    return status


def degraded_status() -> control_pb2.Status:
    """A service whose supervisor gave up on the mlx worker."""
    status = ready_status()
    status.readiness, status.is_serving = control_pb2.READINESS_DEGRADED, False
    status.problems.append("The model folder /m is missing. Set model.path and restart mlx.")
    worker = status.workers[1]
    worker.state = control_pb2.WORKER_STATE_FATAL
    worker.restart_count = 5
    worker.last_exit.code = 69
    worker.last_exit.reason = "model folder /m is missing"
    return status


def read_all(stream: IO[str] | None) -> str:
    """Reads the rest of a process's pipe."""
    assert stream is not None
    return stream.read()
