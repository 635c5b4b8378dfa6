"""A daemon in a terminal says when it is ready, and what to type next."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal_process import TerminalProcess


@pytest.fixture
def home() -> Iterator[Path]:
    """A path short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ac-") as folder:
        yield Path(folder)


def test_a_person_learns_when_it_is_ready_and_what_to_type(home: Path) -> None:
    """The wait is announced first; after it comes the next command, once."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ANYCLAUDE_HOME": str(home),
        "ANYCLAUDE_PORT": "0",
    }
    command = [sys.executable, "-m", "anyclaude.supervisor"]
    with TerminalProcess(command, environ, home) as terminal:
        terminal.wait_for("model, which is being loaded")
        terminal.wait_for("Ready. Now type this in another terminal: ")
        terminal.type("\x03")
        code, rest = terminal.wait_end()
    assert code == 0
    assert "Ready. Now type" not in rest
