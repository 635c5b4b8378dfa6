"""Where commands look for Claude Code."""

from pathlib import Path

import pytest

from anyclaude.cli import claude_code
from anyclaude.cli.claude_code import find_claude
from anyclaude.cli.command import CommandError
from anyclaude.cli.doctor.servers import OLDEST_CLAUDE
from tests.checkout import ROOT

# What launchd gives to a program that the desktop starts.
_DESKTOP_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


@pytest.fixture(autouse=True)
def _no_package_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has installed must not decide."""
    monkeypatch.setattr(claude_code, "_PACKAGE_MANAGERS", ())


def _claude(folder: Path) -> Path:
    folder.mkdir(parents=True)
    claude = folder / "claude"
    claude.touch(0o755)
    return claude


def test_the_oldest_release_is_one_that_is_tested() -> None:
    """The doctor warns of releases before the older one that the end-to-end tests run."""
    script = (ROOT / ".ci" / "install-claude-code").read_text()
    assert f"older={'.'.join(map(str, OLDEST_CLAUDE))}\n" in script


@pytest.mark.parametrize("folder", [".local/bin", ".claude/local"])
def test_claude_is_found_from_the_desktop(tmp_path: Path, folder: str) -> None:
    """The folders of Claude Code's own installers are searched although PATH lacks them."""
    claude = _claude(tmp_path / folder)

    assert find_claude({"HOME": str(tmp_path), "PATH": _DESKTOP_PATH}) == str(claude)


def test_the_path_comes_first(tmp_path: Path) -> None:
    """A `claude` on PATH wins over an installed one."""
    _claude(tmp_path / ".local/bin")
    chosen = _claude(tmp_path / "chosen")

    assert find_claude({"HOME": str(tmp_path), "PATH": str(chosen.parent)}) == str(chosen)


def test_a_missing_claude_is_an_error(tmp_path: Path) -> None:
    """The message says how to install it."""
    with pytest.raises(CommandError, match="npm install -g @anthropic-ai/claude-code"):
        find_claude({"HOME": str(tmp_path), "PATH": _DESKTOP_PATH})
