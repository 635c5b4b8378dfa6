"""The process that runs a server of the settings, without a daemon around it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from anyclaude.runtime.child import Birth
from anyclaude.runtime.paths import find_paths
from anyclaude.runtime.settings import Settings
from tests.integration.mlx_server import free_port
from tests.integration.service import WAIT_SECONDS, wait_ended


@pytest.fixture
def port() -> int:
    """Where the file server listens."""
    return free_port()


@pytest.fixture
def logs_output() -> bool:
    """The setting `log_output`."""
    return False


@pytest.fixture
def process(tmp_path: Path, port: int, logs_output: bool) -> Iterator["subprocess.Popen[str]"]:
    """It runs a file server that a shell started, and has been told to begin."""
    serve = f"echo it starts; {sys.executable} -m http.server --bind 127.0.0.1 {port}; true"
    table = {
        "command": ["sh", "-c", serve],
        "base_url": f"http://127.0.0.1:{port}",
        "folder": str(tmp_path),
        "ready_path": "/",
        "log_output": logs_output,
    }
    paths = find_paths({"ANYCLAUDE_HOME": str(tmp_path)})
    settings = Settings.model_validate({"upstreams": {"files": table}})
    birth = Birth("files", 1, paths.worker_socket("files", 1), paths, settings)
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "anyclaude.supervisor.server_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            process_group=0,
        ) as started,
    ):
        assert started.stdin is not None
        started.stdin.write(birth.to_json() + "\n")
        started.stdin.flush()
        yield started
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


def _family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The shell and the file server, once the server answers."""
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) == 2
    return found


def test_the_server_ends_with_the_daemon(process: "subprocess.Popen[str]") -> None:
    """The end of stdin means that the daemon is gone: nothing of the server stays behind."""
    family = _family(process)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(WAIT_SECONDS)
    assert wait_ended(family, WAIT_SECONDS) == []


def test_the_arguments_are_not_logged(process: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """They may contain a key; the log names the program."""
    _family(process)
    log = (tmp_path / "log").read_text()
    assert '"program": "sh"' in log
    assert "http.server --bind" not in log


@pytest.mark.parametrize("logs_output", [False, True])
def test_output_after_the_start_is_logged_on_request(
    process: "subprocess.Popen[str]", tmp_path: Path, port: int, logs_output: bool
) -> None:
    """A server may print prompts once it gets requests, so only its start is logged by default."""
    _, server = _family(process)
    httpx.get(f"http://127.0.0.1:{port}/a-prompt")
    # Its output is complete when it has ended.
    server.kill()
    assert process.wait(WAIT_SECONDS) != 0
    log = (tmp_path / "log").read_text()
    assert "it starts" in log
    assert ("a-prompt" in log) is logs_output


def test_the_server_is_asked_to_end(process: "subprocess.Popen[str]") -> None:
    """SIGTERM reaches the server and what it started, and the process ends in order."""
    family = _family(process)
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    assert wait_ended(family, WAIT_SECONDS) == []
