"""Writes settings of the shell into config.toml, because a service does not see the shell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyclaude.cli import config_file
from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.runtime import loading

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

    A relative model path starts from `folder`; config.toml must be valid too.

    Raises:
        CommandError: FAILED, naming each value that does not fit.
    """
    try:
        loaded = loading.load(file, environ)
    except loading.SettingsError as error:
        raise CommandError(ExitCode.FAILED, str(error)) from None
    effective = {key: value for key, value, _ in loaded.entries()}
    found: dict[str, Recorded] = {}
    for variable, key in loading.ENVIRONMENT_NAMES:
        if not environ.get(variable) or key in found or _is_secret(variable, environ[variable]):
            continue
        found[key] = Recorded(variable, key, _absolute(key, effective[key], folder))
    return list(found.values())


def record(file: Path, wanted: Sequence[Recorded]) -> list[Recorded]:
    """Writes the settings into `file`; returns those that it did not contain.

    Raises:
        CommandError: PRECONDITION when the file cannot contain them.
    """
    changed = config_file.change(file, {setting.key: setting.value for setting in wanted})
    return [setting for setting in wanted if setting.key in changed]


def _is_secret(variable: str, value: str) -> bool:
    """Whether a setting is a key by its name, or an address with credentials in it."""
    return variable.endswith(_SECRET_ENDINGS) or ("://" in value and "@" in value)


def _absolute(key: str, value: Any, folder: Path) -> Any:
    if key != "model.path" or not isinstance(value, str):
        return value
    local = folder / Path(value).expanduser()
    return str(local.absolute()) if local.exists() else value
