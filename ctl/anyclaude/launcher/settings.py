"""The settings file for Claude Code, which includes the user's own `--settings`.

A file, unlike the environment, also reaches a Claude Code that is started again inside the session.
Its name is a digest of its content, so two launches with different modes never share a file.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyclaude.cli.bundle import Endpoint, without_proxy
from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.runtime.paths import make_private_folder, write_if_changed

_FLAG: Final = "--settings"
_NO_CHOOSER: Final = "--no-chooser"
_PROJECT_FILES: Final = (".claude/settings.json", ".claude/settings.local.json")


@dataclass(frozen=True)
class Arguments:
    """The command line for `claude`, with `--settings` and our own option taken out."""

    rest: list[str]
    # A file name or JSON text; None when not given.
    settings: str | None
    no_chooser: bool

    @property
    def asks_for_help(self) -> bool:
        """Whether the help of `claude` itself is wanted, not that of one of its subcommands."""
        return self.rest[:1] in (["--help"], ["-h"])


def split_arguments(arguments: Sequence[str]) -> Arguments:
    """Takes out `--settings X`, `--settings=X` and `--no-chooser`; stops at `--`.

    Raises:
        CommandError: USAGE when it is given twice or has no value.
    """
    rest: list[str] = []
    found: list[str] = []
    no_chooser = False
    pending = iter(arguments)
    for argument in pending:
        if argument == "--":
            rest += [argument, *pending]
        elif argument == _NO_CHOOSER:
            no_chooser = True
        elif argument == _FLAG:
            value = next(pending, None)
            if value is None:
                raise CommandError(ExitCode.USAGE, f"{_FLAG} needs a file or JSON text.")
            found.append(value)
        elif argument.startswith(f"{_FLAG}="):
            found.append(argument.removeprefix(f"{_FLAG}="))
        else:
            rest.append(argument)
    if len(found) > 1:
        raise CommandError(ExitCode.USAGE, f"{_FLAG} is given {len(found)} times; give it once.")
    return Arguments(rest, found[0] if found else None, no_chooser)


def combine(
    own: str | None,
    bundle: Mapping[str, str],
    endpoint: Endpoint,
    unwanted: Collection[str],
    below: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The settings document: the user's, with our environment on top.

    The hosts that the settings files `below` exempt from a proxy stay exempt.

    Raises:
        CommandError: USAGE when the user's settings cannot be read.
    """
    settings = _read(own) if own is not None else {}
    environment = settings.get("env", {})
    if not isinstance(environment, dict):
        raise CommandError(ExitCode.USAGE, f"{_FLAG}: `env` must be an object.")
    kept = {name: value for name, value in environment.items() if name not in unwanted}
    # Claude Code would ask api.anthropic.com about each domain that it fetches.
    local = {} if endpoint.is_passthrough else {"skipWebFetchPreflight": True}
    exempt = without_proxy(bundle, kept, *below)
    return {**local, **settings, "env": {**kept, **bundle, **exempt}}


def environments_of_files(environ: Mapping[str, str], folder: Path) -> list[dict[str, str]]:
    """The environments in the settings files that Claude Code reads for `folder` by itself.

    A file that cannot be read counts as empty: Claude Code reports it.
    """
    home = Path(environ.get("HOME") or Path.home())
    user = Path(environ.get("CLAUDE_CONFIG_DIR") or home / ".claude") / "settings.json"
    found = []
    for file in (user, *(folder / name for name in _PROJECT_FILES)):
        try:
            environment = json.loads(file.read_text(encoding="utf-8"))["env"]
            found.append({name: str(value) for name, value in environment.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def write_settings(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Writes the document, readable by this user alone (it may hold the token)."""
    content = (json.dumps(settings, indent=2) + "\n").encode()
    digest = hashlib.sha256(content).hexdigest()[:12]
    make_private_folder(folder)
    file = folder / f"claude-settings-{digest}.json"
    write_if_changed(file, content, 0o600)
    return file


def _read(own: str) -> dict[str, Any]:
    try:
        # Claude Code takes either form.
        text = own if own.lstrip().startswith("{") else Path(own).read_text(encoding="utf-8")
        settings = json.loads(text)
    except OSError as error:
        raise CommandError(
            ExitCode.USAGE, f"{_FLAG} {own} cannot be read: {error.strerror}."
        ) from None
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"{_FLAG} {own} is not JSON: {error}.") from None
    if not isinstance(settings, dict):
        raise CommandError(ExitCode.USAGE, f"{_FLAG} {own} is not a JSON object.")
    return settings
