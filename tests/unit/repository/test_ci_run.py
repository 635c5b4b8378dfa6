"""`.ci/run` on a system without apt: fakes on the PATH, and a checkout that holds nothing else."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.checkout import ROOT


def _run(folder: Path, *, has_brew: bool) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the script with `make` as the only tool that it asks for."""
    (folder / "checkout" / ".ci").mkdir(parents=True)
    tools = folder / "tools"
    tools.mkdir()
    for name in ("sh", "dirname"):
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)
    fakes = {"make": "exit 0"} | ({"brew": 'echo "brew $*"; exit 9'} if has_brew else {})
    for name, body in fakes.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    script = shutil.copy(ROOT / ".ci/run", folder / "checkout/.ci/run")
    environ = {"PATH": os.fspath(tools)}
    return subprocess.run([script], env=environ, capture_output=True, text=True, timeout=60)


def test_homebrew_installs_what_is_missing(tmp_path: Path) -> None:
    """The names are Homebrew's; what is there and what only Linux needs is not asked for."""
    done = _run(tmp_path, has_brew=True)

    assert done.returncode == 9
    assert done.stdout.split() == ["brew", "install", "tmux", "openssl", "shellcheck", "node"]


def test_without_a_package_manager_the_missing_tools_are_named(tmp_path: Path) -> None:
    """Neither apt nor Homebrew: the message says what to install, and nothing has run."""
    done = _run(tmp_path, has_brew=False)

    assert done.returncode == 1
    assert "install these first, then run this again: tmux openssl shellcheck node" in done.stderr
