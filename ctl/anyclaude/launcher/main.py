"""The `anyclaude` command: becomes `claude`, pointed at the running service.

Everything is checked before the exec. After it this process is Claude Code, which then handles
signals, terminal and exit code itself.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from anyclaude.cli.bundle import ADVICE, Endpoint, contradicting, environment_for
from anyclaude.cli.claude_code import find_claude
from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import CommandError, leave_on_interrupt
from anyclaude.launcher.chooser import choose, should_ask
from anyclaude.launcher.ready import ensure_ready, reach
from anyclaude.launcher.settings import (
    combine,
    environments_of_files,
    split_arguments,
    write_settings,
)
from anyclaude.messages.windows import window_problem
from anyclaude.runtime.paths import find_paths

_HELP: Final = """\
anyclaude starts Claude Code on this machine's anyclaude service.

Usage: anyclaude [--no-chooser] [OPTIONS OF CLAUDE ...]

  --no-chooser           do not ask which workflow this launch is for
  --settings FILE|JSON   as of claude; merged with what the service needs
  ANYCLAUDE_MODE=NAME    use this mode for this launch only (`anyclaudectl mode` lists them)
  anyclaude --resume ID  continue a conversation; Claude Code prints its ID when it ends

anyclaudectl controls the service. Everything else goes to Claude Code, whose own help follows.
"""
# When Claude Code ends, it prints how to resume the conversation. Plain `claude` would resume it
# with another server, so this variable makes it name our command. Versions that do not know the
# variable print `claude --resume ID`.
RESUME_HINT: Final = {"CLAUDE_CODE_RESUME_HINT_COMMAND": "anyclaude"}


def main() -> NoReturn:
    """Replaces this process by Claude Code, or prints why it cannot and exits."""
    leave_on_interrupt()
    try:
        launch(sys.argv[1:], os.environ)
    except CommandError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.code)


def launch(arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Execs `claude --settings FILE ARGUMENTS`.

    Raises:
        CommandError: Claude Code is not installed, the service cannot be reached, or the caller's
            own `--settings` cannot be read.
    """
    split = split_arguments(arguments)
    if split.asks_for_help:
        print(_HELP, flush=True)
    claude = find_claude(environ)
    if split.asks_for_help:
        os.execve(claude, [claude, *split.rest], dict(environ))  # noqa: S606 - becomes claude
    paths = find_paths(environ)
    with reach(paths, environ) as client:
        if should_ask(split, environ, is_terminal=sys.stdin.isatty() and sys.stdout.isatty()):
            environ = {**environ, **choose(client, paths.chooser_file)}
        ensure_ready(client, paths, environ)
    with ControlClient(paths.control_socket) as client:
        endpoint = Endpoint.of(client, environ)
    if problem := window_problem(endpoint.context_window_tokens):
        print(f"anyclaude: {problem}", file=sys.stderr)
    unwanted = contradicting(endpoint)
    below = environments_of_files(environ, Path.cwd())
    settings = combine(split.settings, _bundle(endpoint, environ), endpoint, unwanted, below)
    file = write_settings(paths.state, settings)
    kept = {name: value for name, value in environ.items() if name not in unwanted}
    command = [claude, "--settings", str(file), *split.rest]
    os.execve(claude, command, {**RESUME_HINT, **kept})  # noqa: S606 - this process becomes claude


def _bundle(endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for Claude Code, without tuning that the shell sets itself."""
    bundle = environment_for(endpoint, environ)
    return {
        name: value for name, value in bundle.items() if not (name in ADVICE and environ.get(name))
    }
