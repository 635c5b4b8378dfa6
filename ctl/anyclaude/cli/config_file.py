"""Changes values in config.toml and keeps its comments, its order and every other value.

The result is parsed again before it is written: unless it contains exactly the old and the new
values, the file stays as it is.
"""

import contextlib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.runtime import loading
from anyclaude.runtime.paths import write_atomically


def change(file: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Writes values by their dotted keys into `file`; returns those that it did not contain.

    Raises:
        CommandError: FAILED when the file is not valid TOML, PRECONDITION when it cannot contain
            the values, for example because `server` is a number in it, not a table.
    """
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    before = _values(file, old)
    changes = {key: value for key, value in wanted.items() if before.get(key) != value}
    if not changes:
        return {}
    try:
        new = _edited(old, changes)
        is_right = loading.flatten(tomllib.loads(new)) == before | changes
    except (TOMLKitError, tomllib.TOMLDecodeError, TypeError):
        is_right = False
    if not is_right:
        lines = ", ".join(f"{key} = {as_toml(value)}" for key, value in changes.items())
        raise CommandError(
            ExitCode.PRECONDITION,
            f"{file} cannot be edited without changing the rest of it. "
            f"Write {lines} into it yourself, then run the command again.",
        )
    write_atomically(file, new.encode(), 0o600)
    return changes


def typed(file: Path, key: str, text: str) -> Any:
    """The value that `text` gives the setting `key`, in the setting's own type.

    `text` is a TOML value, such as `["a", "b"]`, or else a string.

    Raises:
        CommandError: USAGE, saying what would be valid.
    """
    problems = ""
    for value in _readings(text):
        try:
            loaded = loading.load(file, {}, {key: value})
        except loading.SettingsError as error:
            problems = problems or str(error)
            continue
        # A key below `headers` or another table of the user's own has no entry.
        return {name: known for name, known, _ in loaded.entries()}.get(key, value)
    raise CommandError(ExitCode.USAGE, problems)


def as_toml(value: Any) -> str:
    """The value as it is written in the file."""
    return str(tomlkit.item(value).as_string())


def _readings(text: str) -> Iterator[Any]:
    with contextlib.suppress(tomllib.TOMLDecodeError):
        yield tomllib.loads(f"value = {text}")["value"]
    yield text


def _values(file: Path, text: str) -> dict[str, Any]:
    try:
        return loading.flatten(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise CommandError(
            ExitCode.FAILED, f"{file} is not valid TOML: {error}. Correct or remove the file."
        ) from None


def _edited(text: str, changes: Mapping[str, Any]) -> str:
    document = tomlkit.parse(text)
    for key, value in changes.items():
        *parents, name = key.split(".")
        table: Any = document
        for parent in parents:
            if parent not in table:
                table[parent] = tomlkit.table()
            table = table[parent]
        table[name] = value
    return tomlkit.dumps(document)
