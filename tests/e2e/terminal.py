"""The interactive Claude Code in a terminal of its own, driven by keys and read by screens."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.claude_code import ClaudeCode

_SIZE: Final = ("-x", "120", "-y", "40")
_POLL_SECONDS: Final = 0.05
WAIT_SECONDS: Final = 120.0


class TerminalUnavailable(Exception):
    """There is no tmux on this machine."""


@dataclass(frozen=True)
class Terminal:
    """One terminal; the screen is what a person would see."""

    command: Callable[[Sequence[str]], subprocess.CompletedProcess[str]]

    @property
    def screen(self) -> str:
        return self.command(["capture-pane", "-p"]).stdout

    @property
    def title(self) -> str:
        """The title that the client gave the terminal."""
        return self.command(["display-message", "-p", "#{pane_title}"]).stdout.strip()

    def type(self, words: str) -> None:
        self.command(["send-keys", "-l", words])

    def press(self, key: str) -> None:
        """Sends a key by its tmux name: Enter, Escape."""
        self.command(["send-keys", key])

    def wait_for(self, words: str) -> None:
        """Returns once `words` are on the screen."""
        self.wait_until(lambda: words in self.screen, f"{words!r} on the screen")

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Polls the screen, which has no event to wait for."""
        end = time.monotonic() + WAIT_SECONDS
        while not holds():
            assert time.monotonic() < end, f"no {what}:\n{self.screen}"
            time.sleep(_POLL_SECONDS)


@contextmanager
def open_terminal(claude: ClaudeCode, folder: Path) -> Iterator[Terminal]:
    """The client in `folder`, after everything that it asks a new user."""
    if shutil.which("tmux") is None:
        raise TerminalUnavailable("tmux is not installed")
    _answer_first_questions(claude.home, folder)
    # A socket path has to be short.
    tmux_folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-t-"))
    tmux = ["tmux", "-S", str(tmux_folder / "s"), "-f", "/dev/null"]
    environment = {**claude.variables, "TERM": "xterm-256color"}

    def command(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            claude.namespace.command([*tmux, *arguments]),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    try:
        command(["new-session", "-d", *_SIZE, str(claude.binary)])
        yield Terminal(command)
    finally:
        subprocess.run(
            claude.namespace.command([*tmux, "kill-server"]), capture_output=True, check=False
        )
        shutil.rmtree(tmux_folder, ignore_errors=True)


def _answer_first_questions(home: Path, folder: Path) -> None:
    state = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "projects": {
            str(folder): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        },
    }
    (home / ".claude.json").write_text(json.dumps(state))
