"""Asks on a terminal which workflow this launch is for, and remembers the answer.

It never asks in a script: not without a terminal, in a print run, for a subcommand of `claude`,
when a mode is given, when only one workflow can be chosen, with `--no-chooser`, or with
`chooser.show = false`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from anyclaude.cli.client import ControlClient
from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.control.v1 import control_pb2
from anyclaude.launcher.settings import Arguments
from anyclaude.launcher.workflows import Kept, Suggestion, Workflow, describe, suggest, workflows
from anyclaude.runtime.paths import make_private_folder, write_if_changed

_SHOW_KEY: Final = "chooser.show"
_SUMMARY_KEY: Final = "chooser.summary"
# Options of `claude` with which there is no conversation on the terminal.
_QUIET: Final = frozenset({"--print", "--help", "-h", "--version", "-v"})
_PRINT_AMONG_OTHERS: Final = re.compile(r"-[a-zA-Z]*p[a-zA-Z]*")
_SUBCOMMANDS: Final = frozenset(
    {
        *("agents", "auth", "auto-mode", "config", "doctor", "install", "mcp", "plugin"),
        *("plugins", "setup-token", "update", "upgrade"),
    }
)


def is_conversation(arguments: Arguments, *, is_terminal: bool) -> bool:
    """Whether a person starts a conversation at a terminal."""
    return is_terminal and not _is_quiet(arguments.rest)


def should_ask(arguments: Arguments, environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether a person starts a conversation at a terminal and has not named a mode."""
    return (
        is_conversation(arguments, is_terminal=is_terminal)
        and not arguments.no_chooser
        and not environ.get("ANYCLAUDE_MODE")
    )


def wants_summary(client: ControlClient) -> bool:
    """Whether the settings ask for a summary at the end of a conversation."""
    return not _is_off(client.config(), _SUMMARY_KEY)


def _is_off(config: control_pb2.GetConfigResponse, key: str) -> bool:
    return any(entry.key == key and entry.value_json == "false" for entry in config.entries)


def _is_quiet(arguments: Sequence[str]) -> bool:
    if arguments and arguments[0] in _SUBCOMMANDS:
        return True
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(word in _QUIET or _PRINT_AMONG_OTHERS.fullmatch(word) for word in options)


def choose(client: ControlClient, file: Path) -> dict[str, str]:
    """Asks the user; returns the variables that the choice adds to this launch.

    A choice of the service's own mode adds nothing, so that the launch follows later switches.

    Raises:
        CommandError: INTERRUPTED when nothing was chosen, or the daemon did not answer.
    """
    config = client.config()
    if _is_off(config, _SHOW_KEY):
        return {}
    answer = client.modes()
    offered = workflows(answer, config)
    if sum(_is_choosable(flow, answer) for flow in offered) < 2:
        return {}
    print(menu(offered, _kept(client)))
    usual = _usual(offered, _remembered(file), answer.mode)
    chosen = _selected(offered, usual, answer)
    _remember(file, chosen)
    name = chosen.mode.name
    print(f"{chosen.title}: mode {name}. Next time: ANYCLAUDE_MODE={name} anyclaude.")
    return {} if name == answer.mode else {"ANYCLAUDE_MODE": name}


def menu(offered: Sequence[Workflow], kept: Kept | None) -> str:
    """Returns the text of the whole menu."""
    pages = [describe(number, flow, kept) for number, flow in enumerate(offered, 1)]
    return "\n".join(["Choose your workflow:", *pages])


def _kept(client: ControlClient) -> Kept | None:
    try:
        caches = client.list_caches()
    except CommandError:
        # The menu leaves them out; `ensure_ready` reports the problem itself.
        return None
    lineages = [cache for cache in caches.caches if cache.session_id]
    return Kept(
        conversations=len(lineages),
        tokens=sum(cache.tokens for cache in lineages),
    )


def _is_choosable(flow: Workflow, answer: control_pb2.GetModeResponse) -> bool:
    # The service's own mode may be loading its model: `ensure_ready` waits for it later.
    return flow.mode.ready or flow.mode.name == answer.mode


def _selected(
    offered: Sequence[Workflow], usual: int, answer: control_pb2.GetModeResponse
) -> Workflow:
    """Asks until a ready workflow is chosen; asks once more when another one fits better."""
    advised: set[str] = set()
    while True:
        number = _ask(len(offered), usual)
        chosen = offered[number - 1]
        if not _is_choosable(chosen, answer):
            print(f"{chosen.title} cannot be chosen now. {chosen.mode.reason}")
            continue
        advice = suggest(chosen, offered, answer.recent_needs)
        if advice is None or chosen.key in advised:
            return chosen
        advised.add(chosen.key)
        print(advise(chosen, advice, offered))
        if advice.other is None:
            return chosen
        # Enter keeps the choice: the suggested mode may send prompts to another machine.
        usual = number


def advise(chosen: Workflow, advice: Suggestion, offered: Sequence[Workflow]) -> str:
    """Returns what the chosen workflow lacks, and which one has it."""
    lacks = " ".join([f"{chosen.title} ({chosen.mode.name}) may not be enough.", *advice.reasons])
    if advice.other is None:
        return f"{lacks} Nothing else that is ready has it."
    number = offered.index(advice.other) + 1
    return f"{lacks} {number}, {advice.other.title} ({advice.other.mode.name}), has it."


def _ask(count: int, usual: int) -> int:
    """Returns a number from 1 to `count`.

    Raises:
        CommandError: INTERRUPTED when the input ended or the user typed q.
    """
    while True:
        try:
            word = input(f"Selection [1-{count}, Enter for {usual}, q to leave]: ").strip().lower()
        except EOFError:
            word = "q"
        if word in ("q", "quit"):
            raise CommandError(ExitCode.INTERRUPTED, "Nothing was chosen.")
        if not word:
            return usual
        if word.isdecimal() and 1 <= int(word) <= count:
            return int(word)
        print(f"Please type a number from 1 to {count}.")


def _usual(offered: Sequence[Workflow], remembered: str, service_mode: str) -> int:
    """The number that Enter selects: the last choice, or else the mode of the service."""
    keys = [flow.key for flow in offered]
    if remembered in keys:
        return keys.index(remembered) + 1
    names = [flow.mode.name for flow in offered]
    return names.index(service_mode) + 1 if service_mode in names else 1


def _remembered(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["workflow"])
    except (OSError, ValueError, KeyError, TypeError):
        # The file is missing or damaged: the user only has to type a number again.
        return ""


def _remember(file: Path, chosen: Workflow) -> None:
    make_private_folder(file.parent)
    write_if_changed(file, json.dumps({"workflow": chosen.key}).encode(), 0o600)
