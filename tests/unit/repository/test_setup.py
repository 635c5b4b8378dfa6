"""Which Python `deploy/setup` chooses: fakes on the PATH print their name when they are used."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT
from tests.terminal_process import TerminalProcess

# Answers setup's questions; when it should make an environment, it prints its name and fails.
FAKE_PYTHON: Final = """#!/bin/sh
case "$*" in
*"(3, 14)"*) exit {older} ;;
*version_info*) exit {unsupported} ;;
*CONFIG_ARGS*) exit {unoptimised} ;;
*platform.machine*) exit {intel} ;;
*venv*) echo "chosen: {name}" >&2; exit 1 ;;
esac
"""

PIP_WITH_TWO_PACKAGES: Final = """#!/bin/sh
case "$*" in
*pip*)
    echo "Collecting mlx==0.31.0"
    echo "Collecting tokenizers (from anyclaude==0.1.0)"
    echo "Installing collected packages: mlx, tokenizers" ;;
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


def put_program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(script)
    program.chmod(0o755)
    return program


def fake_python(
    folder: Path,
    name: str,
    *,
    supported: bool = True,
    optimised: bool = True,
    intel: bool = False,
    newer: bool = False,
) -> Path:
    facts = {
        "older": not newer,
        "unsupported": newer or not supported,
        "unoptimised": not optimised,
        "intel": intel,
    }
    exits = {fact: int(holds) for fact, holds in facts.items()}
    return put_program(folder, name, FAKE_PYTHON.format(name=f"{folder.name}/{name}", **exits))


def mac(folder: Path, version: str = "15.1") -> Path:
    """A folder for the PATH whose `uname` and `sw_vers` are those of a Mac."""
    put_program(folder, "uname", "#!/bin/sh\necho Darwin\n")
    put_program(folder, "sw_vers", f"#!/bin/sh\necho {version}\n")
    return folder


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


def test_an_intel_python_on_a_mac_is_passed_over(checkout: Path, tmp_path: Path):
    """The arm64 Python behind it on the PATH is chosen, and setup says what is wrong with Intel."""
    rosetta, homebrew = tmp_path / "rosetta", tmp_path / "homebrew"
    intel = fake_python(rosetta, "python3.12", intel=True)
    fake_python(homebrew, "python3.12")
    messages = chosen(checkout, mac(tmp_path / "mac"), rosetta, homebrew)
    assert "chosen: homebrew/python3.12" in messages
    assert f"passing over {intel}: it runs as an Intel program" in messages


def test_a_mac_without_an_arm64_python_is_an_error(checkout: Path, tmp_path: Path):
    """Setup says which Python it found, why that one cannot be used, and what to install."""
    intel = fake_python(tmp_path / "rosetta", "python3.12", intel=True)
    messages = chosen(checkout, mac(tmp_path / "mac"), tmp_path / "rosetta")
    assert f"passing over {intel}" in messages
    assert "no arm64 Python 3.11, 3.12 or 3.13 found" in messages
    assert "brew install python@3.13" in messages
    assert "chosen" not in messages


def test_a_named_python_on_a_mac_must_be_arm64(checkout: Path, tmp_path: Path):
    """PYTHON does not get an Intel Python past the check."""
    fake_python(tmp_path / "homebrew", "python3.12")
    named = fake_python(tmp_path / "own", "python3.12", intel=True)
    messages = chosen(checkout, mac(tmp_path / "mac"), tmp_path / "homebrew", python=str(named))
    assert f"PYTHON={named} runs as an Intel program" in messages
    assert "MLX needs arm64" in messages
    assert "chosen" not in messages


def test_an_intel_environment_on_a_mac_is_replaced(checkout: Path, tmp_path: Path):
    """An environment that an earlier setup made with an Intel Python is made again."""
    fake_python(checkout / ".venv" / "bin", "python", intel=True)
    fake_python(tmp_path / "homebrew", "python3.12")
    messages = chosen(checkout, mac(tmp_path / "mac"), tmp_path / "homebrew")
    assert "chosen: homebrew/python3.12" in messages
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(("version", "accepted"), [("13.7.1", False), ("14.0", True), ("26", True)])
def test_an_old_macos_is_an_error(checkout: Path, tmp_path: Path, version: str, *, accepted: bool):
    """MLX has builds for macOS 14 and newer: setup says so before pip fails."""
    fake_python(tmp_path / "homebrew", "python3.12")
    messages = chosen(checkout, mac(tmp_path / "mac", version), tmp_path / "homebrew")
    assert ("chosen: homebrew/python3.12" in messages) is accepted
    assert (f"this is macOS {version}, and MLX has builds for macOS 14" in messages) is not accepted


def test_another_system_needs_no_arm64(checkout: Path, tmp_path: Path):
    """On Linux an x86_64 Python is as good as any."""
    linux = put_program(tmp_path / "linux", "uname", "#!/bin/sh\necho Linux\n").parent
    fake_python(tmp_path / "system", "python3.12", intel=True)
    assert "chosen: system/python3.12" in chosen(checkout, linux, tmp_path / "system")


def test_a_newer_python_is_passed_over(checkout: Path, tmp_path: Path):
    """Homebrew's `python3` may be newer than MLX supports: a supported one behind it is chosen."""
    fake_python(tmp_path / "homebrew", "python3", newer=True)
    fake_python(tmp_path / "system", "python3.13")
    messages = chosen(checkout, tmp_path / "homebrew", tmp_path / "system")
    assert "chosen: system/python3.13" in messages


def test_a_newer_python_alone_is_an_error(checkout: Path, tmp_path: Path):
    """Setup names the Python that it passed over, and the one to install."""
    newer = fake_python(tmp_path / "homebrew", "python3", newer=True)
    messages = chosen(checkout, tmp_path / "homebrew")
    assert f"passing over {newer}: it is newer than Python 3.13" in messages
    assert "brew install python@3.13" in messages
    assert "chosen" not in messages


def installed(checkout: Path, pip: str) -> subprocess.CompletedProcess[str]:
    """Runs setup with an environment whose pip is this script."""
    script = f"""#!/bin/sh
case "$*" in
*pip*)
{pip}
;;
esac
"""
    put_program(checkout / ".venv" / "bin", "python", script)
    return subprocess.run(
        [str(checkout / "deploy/setup")], capture_output=True, text=True, timeout=60
    )


def test_an_installation_ends_with_the_next_command(checkout: Path) -> None:
    """It is announced, what pip prints stays out, and a second run has nothing to do."""
    done = installed(checkout, "echo Collecting mlx; echo Installing collected packages: mlx")
    assert done.returncode == 0
    assert done.stderr.splitlines()[0].startswith("setup: installing anyclaude into .venv")
    assert done.stderr.splitlines()[-1].endswith("'make run' starts it")
    assert "Collecting" not in done.stderr + done.stdout
    assert installed(checkout, "exit 1").stderr == ""


def test_a_failed_installation_shows_what_pip_said(checkout: Path) -> None:
    """Everything that pip printed is shown, then the reason; the next run tries again."""
    pip = "echo Collecting mlx; echo ERROR: no network >&2; exit 1"
    for _ in range(2):
        done = installed(checkout, pip)
        assert done.returncode == 1
        assert "Collecting mlx\nERROR: no network\n" in done.stderr
        assert "pip could not install" in done.stderr


def test_the_packages_are_counted_on_a_terminal(checkout: Path) -> None:
    """A person sees which package is being installed."""
    put_program(checkout / ".venv" / "bin", "python", PIP_WITH_TWO_PACKAGES)
    command = [str(checkout / "deploy/setup")]
    with TerminalProcess(command, dict(os.environ), checkout) as terminal:
        code, seen = terminal.wait_end()
    assert code == 0
    assert "setup: package 2: tokenizers" in seen
    assert "setup: writing 2 packages to .venv" in seen
