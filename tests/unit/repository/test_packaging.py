"""What a release and its users rely on: type markers, the changelog, shell scripts that parse."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT
from tools.release import ReleaseError, notes

_PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
_CHANGELOG: Final = (ROOT / "CHANGELOG.md").read_text()
_SCRIPT_FOLDERS: Final = (".ci", "deploy", "docs", "tests", "tools")
_SCRIPTS: Final = sorted(
    path
    for folder in _SCRIPT_FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.read_bytes().startswith((b"#!/bin/sh", b"#!/usr/bin/env sh"))
)


def test_every_package_is_marked_as_typed() -> None:
    """Each part of the namespace that the wheel ships has a `py.typed` file (PEP 561)."""
    roots = _PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    packages = [
        folder
        for root in roots
        for folder in (ROOT / root).iterdir()
        if folder.is_dir() and any(folder.rglob("*.py"))
    ]

    assert len(packages) >= len(roots)
    assert [str(folder) for folder in packages if not (folder / "py.typed").is_file()] == []


def test_the_version_can_be_released() -> None:
    """The changelog has a section for the version of today, and one for what comes next."""
    version = _PROJECT["project"]["version"]

    assert notes(f"v{version}", (ROOT / "pyproject.toml").read_text(), _CHANGELOG)
    assert re.search(r"^## \[Unreleased\]$", _CHANGELOG, re.MULTILINE)


def test_a_wrong_tag_is_refused() -> None:
    """A tag that is not the version, and a version without notes, are no release."""
    project = '[project]\nversion = "1.2.0"\n'
    changelog = "## [Unreleased]\n\n## [1.2.0] - 2026-01-02\n\n- New.\n\n## [1.1.0]\n\n- Old.\n"

    assert notes("v1.2.0", project, changelog) == "- New."
    with pytest.raises(ReleaseError, match=r"tag v1\.2\.0"):
        notes("v1.3.0", project, changelog)
    with pytest.raises(ReleaseError, match=r"nothing about 1\.2\.0"):
        notes("v1.2.0", project, changelog.replace("[1.2.0]", "[1.2.1]"))


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shell_scripts_parse(script: Path) -> None:
    """No script has a syntax error; where shellcheck is installed, it finds nothing either."""
    checks = [["sh", "-n", str(script)]]
    if shellcheck := shutil.which("shellcheck"):
        checks.append([shellcheck, str(script)])
    for check in checks:
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
