"""Which Python `deploy/setup` takes: stand-ins on the PATH, which say what they are asked for."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT

# Answers setup's questions; asked for an environment, it says which one it is and fails.
STAND_IN: Final = """#!/bin/sh
case "$*" in
*version_info*) exit {unsupported} ;;
*CONFIG_ARGS*) exit {unoptimised} ;;
*venv*) echo "taken: {name}" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What setup needs of one, without an environment."""
    folder = tmp_path / "a checkout"
    (folder / "deploy").mkdir(parents=True)
    for name in ("deploy/setup", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def stand_in(folder: Path, name: str, *, supported: bool = True, optimised: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    python = folder / name
    said = {"unsupported": int(not supported), "unoptimised": int(not optimised)}
    python.write_text(STAND_IN.format(name=f"{folder.name}/{name}", **said))
    python.chmod(0o755)
    return python


def taken(checkout: Path, *folders: Path, python: str = "") -> str:
    """What setup says, with nothing on the PATH but `folders` and the system's tools."""
    tools = checkout / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "rm", "tr", "uname"):
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)
    path = os.pathsep.join(map(str, (*folders, tools)))
    environ = {"PATH": path} | ({"PYTHON": python} if python else {})
    command = [str(checkout / "deploy/setup")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr


def test_an_optimised_python_is_taken_first(checkout: Path, tmp_path: Path):
    """Wherever on the PATH it stands, and whatever its folder is called."""
    slower, faster = tmp_path / "pyenv", tmp_path / "with space"
    stand_in(slower, "python3.12", optimised=False)
    stand_in(slower, "python3.11", optimised=False)
    stand_in(faster, "python3.11")
    assert "taken: with space/python3.11" in taken(checkout, slower, faster)


def test_any_other_will_do(checkout: Path, tmp_path: Path):
    """It says what that costs."""
    slower = tmp_path / "pyenv"
    stand_in(slower, "python3.12", supported=False)
    stand_in(slower, "python3.13", optimised=False)
    said = taken(checkout, slower)
    assert "taken: pyenv/python3.13" in said
    assert "built without optimisation" in said


def test_the_one_that_is_named_is_taken(checkout: Path, tmp_path: Path):
    """PYTHON decides, optimised or not, and without a warning."""
    faster = tmp_path / "system"
    stand_in(faster, "python3.12")
    named = stand_in(tmp_path / "own", "python3.11", optimised=False)
    said = taken(checkout, faster, python=str(named))
    assert "taken: own/python3.11" in said
    assert "optimisation" not in said


def test_the_one_that_is_named_has_to_do(checkout: Path, tmp_path: Path):
    """No other is taken in its place."""
    stand_in(tmp_path / "system", "python3.12")
    named = stand_in(tmp_path / "own", "python3.9", supported=False)
    said = taken(checkout, tmp_path / "system", python=str(named))
    assert f"PYTHON={named} is no Python 3.11, 3.12 or 3.13" in said
    assert "taken" not in said


def test_none_is_an_error(checkout: Path, tmp_path: Path):
    """It says what to install."""
    stand_in(tmp_path / "old", "python3", supported=False)
    said = taken(checkout, tmp_path / "old")
    (line,) = said.splitlines()
    assert "no Python 3.11, 3.12 or 3.13 found" in line
    assert "apt install python3-venv" in line
    assert "taken" not in said
