"""docs/first-ten-minutes.md is what a person sees: each of its commands is run, in its order."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT
from tests.e2e.service import Service
from tests.integration.service import WAIT_SECONDS

_PAGE: Final = ROOT / "docs" / "first-ten-minutes.md"
# Sizes, times, ids and addresses differ from run to run.
_VARYING: Final = re.compile(
    r"req_\w+|prefixes/\w+|/[\w./~-]+|\b\d[\d.,]*( ?[kM]?B\b| s\b|m \d+s\b)?"
)


def _sessions() -> list[list[tuple[str, list[str]]]]:
    """The blocks of the page: their commands, each with the lines that follow it."""
    sessions = []
    for block in re.findall(r"```console\n(.*?)```", _PAGE.read_text(), re.DOTALL):
        parts = re.split(r"^\$ (.+)\n", block, flags=re.MULTILINE)[1:]
        sessions.append([(parts[at], parts[at + 1].splitlines()) for at in range(0, len(parts), 2)])
    return sessions


def _shape(line: str) -> str:
    """A line without what differs from run to run."""
    return " ".join(_VARYING.sub("N", line).split())


@pytest.mark.slow(25)
def test_every_command_of_the_page(
    service: Service, claude_binary: Path, tmp_path: Path, project: Path
) -> None:
    """Every command ends well, and prints every line that the page shows, in that order."""
    (tmp_path / "claude").symlink_to(claude_binary)
    environ = service.environ | {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "IS_SANDBOX": "1",
        "CLAUDE_CODE_TMPDIR": str(tmp_path),
        "COLUMNS": "100",
    }
    _, *blocks = _sessions()
    commands = [each for block in blocks for each in block]
    for command, expected in commands:
        done = subprocess.run(
            service.namespace.command(["/bin/sh", "-c", command]),
            cwd=project,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5 * WAIT_SECONDS,
            check=False,
        )
        print(f"$ {command}\n{done.stdout}{done.stderr}", end="", flush=True)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        seen = iter(map(_shape, (done.stdout + done.stderr).splitlines()))
        # A line of three dots stands for any others.
        for line in filter(lambda line: line != "...", expected):
            assert _shape(line) in seen, f"$ {command}\nno {line!r} in:\n{done.stdout}"
