"""Writes settings of the shell into config.toml, because a service does not see the shell.

The edit keeps comments, order and every other value. The result is parsed again before it is
written: unless it contains exactly the old and the new settings, the file stays as it is.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.runtime import settings
from anyclaude.runtime.paths import write_atomically

# Keys and credentials must not be written to a file unless their owner does it.
_SECRET_ENDINGS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


@dataclass(frozen=True)
class Recorded:
    """One setting that a variable of the shell gives a value."""

    variable: str
    key: str
    value: Any


def found_in(environ: Mapping[str, str], file: Path, folder: Path) -> list[Recorded]:
    """Returns the settings that the shell gives, checked and typed as the daemon does it.

    Args:
        environ: the shell's environment.
        file: config.toml, which must be valid too.
        folder: the folder that a relative model path starts from.

    Raises:
        CommandError: FAILED, naming each value that does not fit.
    """
    try:
        loaded = settings.load(file, environ)
    except settings.SettingsError as error:
        raise CommandError(ExitCode.FAILED, str(error)) from None
    effective = {key: value for key, value, _ in loaded.entries()}
    found: dict[str, Recorded] = {}
    for variable, key in settings.ENVIRONMENT_NAMES:
        if not environ.get(variable) or key in found or _is_secret(variable, environ[variable]):
            continue
        found[key] = Recorded(variable, key, _absolute(key, effective[key], folder))
    return list(found.values())


def record(file: Path, wanted: Sequence[Recorded]) -> list[Recorded]:
    """Writes the settings into `file`; returns those that it did not contain.

    Raises:
        CommandError: PRECONDITION when the file cannot contain them, for example because `server`
            is a number in it, not a table.
    """
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    before = settings.flatten(tomllib.loads(old))
    changes = [setting for setting in wanted if before.get(setting.key) != setting.value]
    if not changes:
        return []
    expected = before | {change.key: change.value for change in changes}
    try:
        new = _edited(old, changes)
        is_right = settings.flatten(tomllib.loads(new)) == expected
    except (TOMLKitError, tomllib.TOMLDecodeError, TypeError):
        is_right = False
    if not is_right:
        lines = ", ".join(f"{c.key} = {tomlkit.item(c.value).as_string()}" for c in changes)
        raise CommandError(
            ExitCode.PRECONDITION,
            f"{file} cannot be edited without changing the rest of it. "
            f"Write {lines} into it yourself, then run `anyclaudectl service install` again.",
        )
    write_atomically(file, new.encode(), 0o600)
    return changes


def _edited(text: str, changes: Sequence[Recorded]) -> str:
    document = tomlkit.parse(text)
    for change in changes:
        *parents, name = change.key.split(".")
        table: Any = document
        for parent in parents:
            if parent not in table:
                table[parent] = tomlkit.table()
            table = table[parent]
        table[name] = change.value
    return tomlkit.dumps(document)


def _is_secret(variable: str, value: str) -> bool:
    """Whether a setting is a key by its name, or an address with credentials in it."""
    return variable.endswith(_SECRET_ENDINGS) or ("://" in value and "@" in value)


def _absolute(key: str, value: Any, folder: Path) -> Any:
    if key != "model.path" or not isinstance(value, str):
        return value
    local = folder / Path(value).expanduser()
    return str(local.absolute()) if local.exists() else value
