"""Reads the settings: merges file and environment into the declarations of `settings`.

A flag wins over the environment, the environment over the TOML file, the file over the default.
Each value remembers which of them it came from. An unknown key or an invalid value is an error that
names the key, its source and what would be valid.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from anyclaude.runtime.settings import Settings
from anyclaude.runtime.upstreams import without_credentials


class Origin(StrEnum):
    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


class SettingsError(Exception):
    """The settings are invalid; the message names each key, its source and what would be valid."""


@dataclass(frozen=True)
class LoadedSettings:
    """The effective settings, and where each value came from."""

    settings: Settings
    # By dotted key, only for values that are not defaults.
    origins: Mapping[str, str]
    file: Path

    def entries(self) -> list[tuple[str, Any, str]]:
        """Every dotted key with its effective value and origin, in order of declaration."""
        flat = flatten(self.settings.model_dump(mode="json"))
        for key in filter(_PROXIES.fullmatch, flat):
            flat[key] = without_credentials(flat[key])
        return [(key, value, self.origins.get(key, Origin.DEFAULT)) for key, value in flat.items()]


# Environment variables and the keys that they set; the first one that has a value wins.
ENVIRONMENT_NAMES: Final[tuple[tuple[str, str], ...]] = (
    ("ANYCLAUDE_PORT", "server.port"),
    ("ANYCLAUDE_MODE", "mode"),
    ("ANYCLAUDE_MODEL", "model.path"),
    ("MLX_LM_MODEL", "model.path"),
    ("MLX_MODEL_PATH", "model.path"),
    ("ANYCLAUDE_LOG_LEVEL", "log.level"),
    ("LMSTUDIO_URL", "upstreams.lmstudio.base_url"),
    ("LOCAL_URL", "upstreams.lmstudio.base_url"),
    ("LMSTUDIO_MODEL", "upstreams.lmstudio.model"),
    ("LOCAL_MODEL", "upstreams.lmstudio.model"),
    ("LMSTUDIO_CONTEXT_LENGTH", "upstreams.lmstudio.context_window_tokens"),
    ("LOCAL_CONTEXT_LENGTH", "upstreams.lmstudio.context_window_tokens"),
    ("MLX_LM_URL", "upstreams.mlx-lm.base_url"),
    ("OPENROUTER_BASE_URL", "upstreams.openrouter.base_url"),
    ("OPENROUTER_MODEL", "upstreams.openrouter.model"),
)
# Tables whose keys the user chooses: each counts as one value, not as a section.
_TABLES: Final = re.compile(r"upstreams\.[^.]+\.(models|headers|extra_body|environment)")
# Sets any key: ANYCLAUDE__SERVER__PORT=49152.
ENVIRONMENT_PREFIX: Final = "ANYCLAUDE__"
_PROXIES: Final = re.compile(r"upstreams\.[^.]+\.proxy")
# People put secrets here by mistake, so an error about these keys does not repeat the value.
_MAY_HOLD_A_KEY: Final = re.compile(r"\.(api_key_env|base_url|headers|proxy)$")


def load(
    file: Path, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> LoadedSettings:
    """Merges file, environment and flags into the effective settings.

    Args:
        file: the TOML file; a missing file counts as empty.
        environ: the process environment.
        flags: dotted keys from the command line; a value of None counts as absent.

    Raises:
        SettingsError: with one line per problem.
    """
    layers = (
        (Origin.FILE, _from_file(file)),
        (Origin.ENVIRONMENT, _from_environment(environ)),
        (Origin.FLAG, {k: v for k, v in (flags or {}).items() if v is not None}),
    )
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    sources: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            values[key] = value
            origins[key] = origin
            sources[key] = _source(origin, key, file, environ)
    try:
        settings = Settings.model_validate(_nest(values))
    except ValidationError as error:
        raise SettingsError(_explain(error, sources)) from None
    return LoadedSettings(settings, origins, file)


def from_entries(entries: Iterable[tuple[str, Any]]) -> Settings:
    """The settings whose effective values `LoadedSettings.entries` listed."""
    return Settings.model_validate(_nest(dict(entries)))


def keep(new: LoadedSettings, old: LoadedSettings, keys: Iterable[str]) -> LoadedSettings:
    """`new`, but with the values and the origins that `keys` have in `old`."""
    kept = set(keys)
    values, before = (flatten(each.settings.model_dump()) for each in (new, old))
    merged = {key: value for key, value in values.items() if key not in kept}
    merged |= {key: before[key] for key in kept if key in before}
    origins = {key: origin for key, origin in new.origins.items() if key not in kept}
    origins |= {key: old.origins[key] for key in kept if key in old.origins}
    return LoadedSettings(Settings.model_validate(_nest(merged)), origins, new.file)


def known_keys() -> list[str]:
    """Every dotted key, in order of declaration."""
    return list(flatten(Settings().model_dump(mode="json")))


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return flatten(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} is not valid TOML: {error}. Correct or remove the file."
        ) from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, key in ENVIRONMENT_NAMES:
        if environ.get(name) and key not in values:
            values[key] = environ[name]
    for name, text in environ.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            values[name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")] = text
    return values


def _source(origin: Origin, key: str, file: Path, environ: Mapping[str, str]) -> str:
    if origin is Origin.FILE:
        return str(file)
    if origin is Origin.FLAG:
        return "command line"
    named = [
        name for name, named_key in ENVIRONMENT_NAMES if named_key == key and environ.get(name)
    ]
    return f"environment {(named or [ENVIRONMENT_PREFIX + key.upper().replace('.', '__')])[0]}"


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    return "\n".join(_explain_one(dict(e), sources) for e in error.errors())


def _explain_one(error: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    source = next(
        (s for k, s in sources.items() if k == key or k.startswith(key + ".")), "settings"
    )
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}?" if close else " See `anyclaudectl config` for all keys."
        return f"{source}: unknown key {key}.{hint}"
    if _MAY_HOLD_A_KEY.search(key):
        return f"{source}: {key}: {error['msg']}."
    return f"{source}: {key} = {json.dumps(error['input'], default=str)}: {error['msg']}."


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the dotted keys of nested tables; tables whose keys the user chooses stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not _TABLES.fullmatch(name):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node: Any = tree
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else node
        # A plain value where a section belongs is left for the validation to refuse.
        if isinstance(node, dict):
            node[leaf] = value
    return tree
