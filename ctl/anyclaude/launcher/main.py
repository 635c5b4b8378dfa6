"""The `anyclaude` command: starts `claude`, pointed at the running service.

Everything is checked before the start. A conversation on a terminal runs as a child, so that its
summary can be printed when it ends. In any other case this process becomes Claude Code.
"""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from anyclaude.cli.bundle import ADVICE, Endpoint, contradicting, environment_for
from anyclaude.cli.claude_code import find_claude
from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import CommandError, leave_on_interrupt
from anyclaude.launcher.chooser import choose, is_conversation, should_ask, wants_summary
from anyclaude.launcher.foreground import leave_as, run
from anyclaude.launcher.ready import ensure_ready, reach
from anyclaude.launcher.settings import (
    combine,
    environments_of_files,
    split_arguments,
    write_settings,
)
from anyclaude.launcher.summary import show_summary
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
    """Runs Claude Code, or prints why it cannot; exits as Claude Code does."""
    leave_on_interrupt()
    try:
        launch(sys.argv[1:], os.environ)
    except CommandError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.code)


def launch(arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Starts `claude --settings FILE ARGUMENTS`.

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
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with reach(paths, environ) as client:
        if should_ask(split, environ, is_terminal=is_terminal):
            environ = {**environ, **choose(client, paths.chooser_file)}
        ensure_ready(client, paths, environ)
    with ControlClient(paths.control_socket) as client:
        has_summary = is_conversation(split, is_terminal=is_terminal) and wants_summary(client)
        launch_id = secrets.token_hex(8) if has_summary else ""
        endpoint = Endpoint.of(client, environ, launch_id)
    if problem := window_problem(endpoint.context_window_tokens):
        print(f"anyclaude: {problem}", file=sys.stderr)
    unwanted = contradicting(endpoint)
    below = environments_of_files(environ, Path.cwd())
    settings = combine(split.settings, _bundle(endpoint, environ), endpoint, unwanted, below)
    file = write_settings(paths.state, settings)
    kept = {name: value for name, value in environ.items() if name not in unwanted}
    command = [claude, "--settings", str(file), *split.rest]
    variables = {**RESUME_HINT, **kept}
    if not endpoint.launch_id:
        os.execve(claude, command, variables)  # noqa: S606 - this process becomes claude
    try:
        status = run(claude, command, variables)
    finally:
        # No other launch has this file, since the launch is named in it.
        file.unlink(missing_ok=True)
    show_summary(paths.control_socket, endpoint.launch_id)
    leave_as(status)


def _bundle(endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for Claude Code, without tuning that the shell sets itself."""
    bundle = environment_for(endpoint, environ)
    return {
        name: value for name, value in bundle.items() if not (name in ADVICE and environ.get(name))
    }
