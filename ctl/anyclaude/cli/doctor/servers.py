"""Checks of what stands around this service: Claude Code, and other servers."""

import re
from collections.abc import Iterator
from typing import Final

from anyclaude.cli.claude_code import find_claude
from anyclaude.cli.command import CommandError
from anyclaude.cli.doctor.finding import Examined, Finding, ok, problem, warning

# The oldest release that the end-to-end tests run (.ci/install-claude-code).
OLDEST_CLAUDE: Final = (2, 1, 197)


def claude(examined: Examined) -> Iterator[Finding]:
    """Whether Claude Code is installed, in a release that is tested."""
    try:
        program = find_claude(examined.environ)
    except CommandError:
        yield problem(
            "Claude Code is not installed: there is no `claude`.",
            "`anyclaude` cannot start it.",
            "npm install -g @anthropic-ai/claude-code",
        )
        return
    done = examined.run([program, "--version"])
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    if done.returncode or found is None:
        yield problem(
            f"`{program} --version` failed: {(done.stderr or done.stdout).strip() or 'no output'}",
            "Claude Code does not start.",
            "npm install -g @anthropic-ai/claude-code",
        )
    elif tuple(map(int, found.groups())) < OLDEST_CLAUDE:
        yield warning(
            f"Claude Code {found[0]} is older than {'.'.join(map(str, OLDEST_CLAUDE))}.",
            "It is not tested, and may send requests of an older form.",
            "claude update",
        )
    else:
        yield ok(f"Claude Code {found[0]}: {program}.")


def servers(examined: Examined) -> Iterator[Finding]:
    """Whether the servers answer that this installation names."""
    if examined.running is None:
        return
    loaded = examined.loaded
    origins = loaded.origins if loaded else {}
    named = {key.split(".")[1] for key in origins if key.startswith("upstreams.")}
    current = examined.running.modes.mode
    for mode in examined.running.modes.modes:
        if mode.ready:
            if mode.name == current:
                yield ok(f"Mode {mode.name} answers: {mode.description}.")
        elif mode.name == current:
            yield problem(
                f"Mode {mode.name} does not answer. {mode.reason}",
                "Every request is refused.",
                "anyclaudectl mode mlx-lm" if mode.name != "mlx-lm" else "",
            )
        elif mode.name in named:
            yield warning(
                f"Mode {mode.name} of your settings does not answer. {mode.reason}",
                "A switch to it is refused.",
                f"anyclaudectl mode {mode.name} --wait",
            )
