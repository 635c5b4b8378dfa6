"""Where Claude Code is installed."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from anyclaude.cli.command import CommandError, ExitCode

# Homebrew on Apple Silicon, and npm or Homebrew elsewhere.
_PACKAGE_MANAGERS: Final = ("/opt/homebrew/bin", "/usr/local/bin")


def find_claude(environ: Mapping[str, str]) -> str:
    """The path of Claude Code: on PATH, or where its installers put it.

    A program that the macOS desktop starts has a PATH of system folders only.

    Raises:
        CommandError: Claude Code is not installed.
    """
    home = Path(environ.get("HOME") or Path.home())
    installed = (home / ".local/bin", home / ".claude/local", *_PACKAGE_MANAGERS)
    path = os.pathsep.join([environ.get("PATH") or os.defpath, *map(str, installed)])
    found = shutil.which("claude", path=path)
    if found:
        return found
    raise CommandError(
        ExitCode.FAILED,
        "Claude Code is not installed: there is no `claude` on PATH. "
        "Install it: `npm install -g @anthropic-ai/claude-code`, "
        "or see https://code.claude.com/docs/en/setup.",
    )
