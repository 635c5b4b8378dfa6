"""Which Python `deploy/setup` chooses: fakes on the PATH print their name when they are used."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT

# Answers setup's questions; when it should make an environment, it prints its name and fails.
FAKE_PYTHON: Final = """#!/bin/sh
case "$*" in
*version_info*) exit {unsupported} ;;
*CONFIG_ARGS*) exit {unoptimised} ;;
*venv*) echo "chosen: {name}" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of a checkout that setup needs, without an environment."""
    folder = tmp_path / "a checkout"
    (folder / "deploy").mkdir(parents=True)
    for name in ("deploy/setup", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def fake_python(folder: Path, name: str, *, supported: bool = True, optimised: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    python = folder / name
    said = {"unsupported": int(not supported), "unoptimised": int(not optimised)}
    python.write_text(FAKE_PYTHON.format(name=f"{folder.name}/{name}", **said))
    python.chmod(0o755)
    return python


def chosen(checkout: Path, *folders: Path, python: str = "") -> str:
    """Returns setup's messages, with only `folders` and the system's tools on the PATH."""
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


def test_an_optimised_python_is_chosen_first(checkout: Path, tmp_path: Path):
    """It wins wherever on the PATH it is, and whatever its folder is called."""
    slower, faster = tmp_path / "pyenv", tmp_path / "with space"
    fake_python(slower, "python3.12", optimised=False)
    fake_python(slower, "python3.11", optimised=False)
    fake_python(faster, "python3.11")
    assert "chosen: with space/python3.11" in chosen(checkout, slower, faster)


def test_a_slower_python_is_chosen_with_a_warning(checkout: Path, tmp_path: Path):
    """Without an optimised Python setup uses another supported one, and says what that costs."""
    slower = tmp_path / "pyenv"
    fake_python(slower, "python3.12", supported=False)
    fake_python(slower, "python3.13", optimised=False)
    said = chosen(checkout, slower)
    assert "chosen: pyenv/python3.13" in said
    assert "built without optimisation" in said


def test_a_named_python_is_chosen(checkout: Path, tmp_path: Path):
    """PYTHON decides, optimised or not, and without a warning."""
    faster = tmp_path / "system"
    fake_python(faster, "python3.12")
    named = fake_python(tmp_path / "own", "python3.11", optimised=False)
    said = chosen(checkout, faster, python=str(named))
    assert "chosen: own/python3.11" in said
    assert "optimisation" not in said


def test_a_named_python_must_be_supported(checkout: Path, tmp_path: Path):
    """Setup fails instead of choosing another one."""
    fake_python(tmp_path / "system", "python3.12")
    named = fake_python(tmp_path / "own", "python3.9", supported=False)
    said = chosen(checkout, tmp_path / "system", python=str(named))
    assert f"PYTHON={named} is no Python 3.11, 3.12 or 3.13" in said
    assert "chosen" not in said


def test_no_python_is_an_error(checkout: Path, tmp_path: Path):
    """Without a supported Python setup says what to install."""
    fake_python(tmp_path / "old", "python3", supported=False)
    said = chosen(checkout, tmp_path / "old")
    (line,) = said.splitlines()
    assert "no Python 3.11, 3.12 or 3.13 found" in line
    assert "apt install python3-venv" in line
    assert "chosen" not in said
