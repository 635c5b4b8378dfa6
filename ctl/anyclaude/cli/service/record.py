"""Writes what the shell says into config.toml, since a service does not see the shell.

Only the keys given are touched: comments, order and every other line stay. After the edit the text
is parsed again; unless it says exactly the old settings plus the new ones, nothing is written.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyclaude.cli.exits import CommandError, ExitCode
from anyclaude.runtime import settings
from anyclaude.runtime.files import write_atomically

_HEADER: Final = re.compile(r"\s*\[")
# Keys and credentials stay out of files that nobody asked us to put them in.
_SECRET_ENDINGS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


@dataclass(frozen=True)
class Recorded:
    """One setting taken over from the shell."""

    variable: str
    key: str
    value: Any


def found_in(environ: Mapping[str, str], file: Path, folder: Path) -> list[Recorded]:
    """What the shell sets, checked and typed as the daemon would.

    Args:
        environ: the shell's environment.
        file: config.toml, whose own content must be sound too.
        folder: what a relative model path is relative to.

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


def record(file: Path, wanted: list[Recorded]) -> list[Recorded]:
    """Puts the settings into `file`; returns those that were not there already.

    Raises:
        CommandError: PRECONDITION when the file is written in a form we would have to rewrite.
    """
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    before = _flat(tomllib.loads(old))
    changes = [setting for setting in wanted if before.get(setting.key) != setting.value]
    if not changes:
        return []
    new = old
    for change in changes:
        new = _with(new, change.key, change.value)
    _check(file, new, before | {change.key: change.value for change in changes}, changes)
    write_atomically(file, new.encode(), 0o600)
    return changes


def _check(file: Path, text: str, expected: Mapping[str, Any], changes: list[Recorded]) -> None:
    try:
        result = _flat(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        result = {}
    if result != expected:
        wanted = ", ".join(f"{change.key} = {_toml(change.value)}" for change in changes)
        raise CommandError(
            ExitCode.PRECONDITION,
            f"{file} cannot be edited without rewriting the rest of it. "
            f"Write {wanted} into it yourself, then run `anyclaudectl service install` again.",
        )


def _with(text: str, key: str, value: Any) -> str:
    """`text` with one dotted key set, on its own line."""
    table, _, name = key.rpartition(".")
    lines = text.splitlines()
    start, end = _table_span(lines, table)
    assignment = re.compile(rf"(\s*{re.escape(name)}\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s#\"']+)(.*)")
    for index in range(start, end):
        found = assignment.fullmatch(lines[index])
        if found:
            lines[index] = f"{found[1]}{_toml(value)}{found[3]}"
            return _joined(lines)
    new_line = f"{name} = {_toml(value)}"
    if table and start == len(lines):
        lines += ([""] if lines else []) + [f"[{table}]", new_line]
    else:
        lines.insert(_after_content(lines, start, end), new_line)
    return _joined(lines)


def _table_span(lines: list[str], table: str) -> tuple[int, int]:
    """The lines of one table, its header excluded; (len, len) when there is no such table."""
    if table:
        header = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?")
        start = next((i + 1 for i, line in enumerate(lines) if header.fullmatch(line)), len(lines))
    else:
        start = 0
    end = next((i for i in range(start, len(lines)) if _HEADER.match(lines[i])), len(lines))
    return start, end


def _after_content(lines: list[str], start: int, end: int) -> int:
    """After the last line of the span that says something, before the blank lines that end it."""
    while end > start and not lines[end - 1].strip():
        end -= 1
    return end


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # Basic strings of TOML and JSON agree on everything a path or a name holds.
    return json.dumps(value, ensure_ascii=False)


def _is_secret(variable: str, value: str) -> bool:
    """A key by its name, or an address with credentials in it (`http://user:word@host`)."""
    return variable.endswith(_SECRET_ENDINGS) or ("://" in value and "@" in value)


def _absolute(key: str, value: Any, folder: Path) -> Any:
    if key != "model.path" or not isinstance(value, str):
        return value
    local = folder / Path(value).expanduser()
    return str(local.absolute()) if local.exists() else value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
