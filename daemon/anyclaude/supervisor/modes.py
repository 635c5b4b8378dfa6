"""The modes, their historic names, and the saved choice that outlives a restart.

Precedence of the mode at start: flag, environment, the mode last set by `anyclaudectl mode`, config
file, default.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from anyclaude.runtime.loading import LoadedSettings, Origin
from anyclaude.runtime.mode_names import HISTORIC, current_name
from anyclaude.runtime.paths import write_atomically
from anyclaude.runtime.settings import Settings
from anyclaude.runtime.upstreams import SwitchPolicy, UpstreamKind, UpstreamSettings
from anyclaude.supervisor.changes import Changes

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

OWN_MODE: Final = "mlx-lm"
AUTO_MODE: Final = "auto"
RELAY: Final = "relay"
# The only worker that keeps caches of ours.
CACHE_WORKER: Final = "mlx"


@dataclass(frozen=True)
class Mode:
    name: str
    description: str
    # Name of the child that answers requests; empty when none can.
    worker: str = ""
    # Why no child can answer, and what to do; empty when one can.
    missing: str = ""
    # Bytes are passed in both directions unchanged.
    is_passthrough: bool = False
    # The content of requests leaves this machine.
    is_remote: bool = False
    # Variable of the key, when the server requires one.
    key_variable: str = ""
    policy: SwitchPolicy = SwitchPolicy.START_FIRST
    # For stop-first: how long its server may take to become ready.
    ready_seconds: float = 0.0

    @property
    def is_relayed(self) -> bool:
        return self.worker == RELAY


Modes = Mapping[str, Mode]

_WHAT: Final[Mapping[UpstreamKind, str]] = {
    UpstreamKind.LMSTUDIO: "LM Studio",
    UpstreamKind.VLLM: "a vLLM server",
    UpstreamKind.LLAMA_CPP: "a llama.cpp server",
    UpstreamKind.OLLAMA: "an Ollama server",
    UpstreamKind.OPENROUTER: "OpenRouter",
    UpstreamKind.CLAUDE: "the real Claude API, bytes passed through",
    UpstreamKind.MLX_LM: "an mlx_lm.server of your own; its caches are not ours",
    UpstreamKind.OTHER: "a server from your configuration",
}


def catalog(settings: Settings) -> Modes:
    """Every mode under these settings, our own first."""
    own = Mode(OWN_MODE, "the local model on MLX, with its KV cache and tools", worker=CACHE_WORKER)
    tables = settings.upstreams
    relayed = {name: _relayed(name, table) for name, table in tables.items()}
    if not tables[OWN_MODE].base_url:
        relayed.pop(OWN_MODE)
    # `auto` is as ready as the mode that it tries first.
    first = relayed.get(OWN_MODE, own)
    auto = Mode(AUTO_MODE, "a mode for each request, by the rules of [auto]", worker=first.worker)
    modes = {own.name: own} | relayed
    return modes | {auto.name: auto}


def _relayed(name: str, table: UpstreamSettings) -> Mode:
    what = _WHAT[table.kind]
    if not table.base_url:
        missing = f"it has no address. Set upstreams.{name}.base_url in `anyclaudectl config path`"
        return Mode(name, what, missing=missing)
    where = f"at {table.base_url}" + ("" if table.is_loopback else "; prompts leave this machine")
    if table.switch is SwitchPolicy.STOP_FIRST:
        where += "; stop-first: our own worker stops and frees its memory"
    needs_key = table.kind is UpstreamKind.OPENROUTER
    return Mode(
        name,
        f"{what}, {where}",
        worker=RELAY,
        is_passthrough=table.kind is UpstreamKind.CLAUDE,
        is_remote=not table.is_loopback,
        key_variable=table.api_key_env if needs_key else "",
        policy=table.switch,
        ready_seconds=table.switch_ready_seconds,
    )


def leaves_machine(mode: Mode, modes: Modes, settings: Settings) -> bool:
    """Whether the content of requests in `mode` may leave this machine."""
    # Images of requests to our own worker go to the mode that describes them.
    named = set() if mode.is_relayed else {settings.vision.mode}
    if mode.name == AUTO_MODE:
        named |= {word for rule in settings.auto.rules for word in rule.use}
    return mode.is_remote or any(known.is_remote for known in modes.values() if known.name in named)


class UnknownModeError(Exception):
    """No mode has this name; the message names those that exist."""


class ModeMissingError(Exception):
    """The mode exists but nothing can serve it; the message says why and what to do."""


def resolve(modes: Modes, word: str) -> tuple[Mode, str]:
    """The mode meant by `word`, or UnknownModeError; for a historic word also a warning."""
    # A table of the configuration may have a historic name.
    name, warning = (word, "") if word in modes else current_name(word)
    if name not in modes:
        raise UnknownModeError(_explain_unknown(modes, word))
    return modes[name], warning


def _explain_unknown(modes: Modes, word: str) -> str:
    close = difflib.get_close_matches(word, [*modes, *HISTORIC], n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f'There is no mode "{word}".{hint} Known modes: {", ".join(modes)}.'


def servable(modes: Modes, word: str) -> tuple[Mode, str]:
    """As `resolve`, for modes that something can answer.

    Raises:
        UnknownModeError
        ModeMissingError
    """
    mode, warning = resolve(modes, word)
    if mode.missing:
        raise ModeMissingError(f"Mode {mode.name} cannot be used: {mode.missing}.")
    return mode, warning


def checked_catalog(settings: Settings) -> Modes:
    """As `catalog`, for settings whose rules and workflows name modes that exist.

    Raises:
        UnknownModeError
    """
    modes = catalog(settings)
    for word in (word for rule in settings.auto.rules for word in rule.use):
        if word not in modes or word == AUTO_MODE:
            raise UnknownModeError(f"auto.rules: {_explain_unknown(modes, word)}")
    _check_vision(modes, settings.vision.mode)
    chooser = settings.chooser
    for word in (chooser.analysis, chooser.edit, chooser.cloud):
        if word not in modes:
            raise UnknownModeError(f"chooser: {_explain_unknown(modes, word)}")
    return modes


def _check_vision(modes: Modes, word: str) -> None:
    if not word:
        return
    if word not in modes:
        raise UnknownModeError(f"vision.mode: {_explain_unknown(modes, word)}")
    if not modes[word].is_relayed or modes[word].is_passthrough:
        raise UnknownModeError(
            f'vision.mode: mode "{word}" cannot describe images. Name a server that sees them, '
            "for example lmstudio."
        )


def initial(loaded: LoadedSettings, mode_file: Path) -> Mode:
    """The mode to start with.

    Raises:
        UnknownModeError: the settings name a mode that does not exist.
        ModeMissingError: the settings name one that nothing can serve.
    """
    modes = checked_catalog(loaded.settings)
    configured, warning = servable(modes, loaded.settings.mode)
    if warning:
        _log.warning("historic mode name", hint=warning)
    if loaded.origins.get("mode") in (Origin.FLAG, Origin.ENVIRONMENT):
        return configured
    return _saved(modes, mode_file) or configured


def save(mode: Mode, mode_file: Path) -> None:
    """Saves `mode`; after a crash the file has either the old or the new choice."""
    write_atomically(mode_file, json.dumps({"mode": mode.name}).encode(), 0o600)


def _saved(modes: Modes, mode_file: Path) -> Mode | None:
    try:
        word = json.loads(mode_file.read_text(encoding="utf-8"))["mode"]
        return servable(modes, word)[0]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, UnknownModeError, ModeMissingError) as error:
        # An unreadable choice must not stop the service; the configured mode is used.
        _log.warning("saved mode ignored", file=str(mode_file), why=str(error))
        return None


class CurrentMode:
    """The mode of new requests, unless a request names one."""

    def __init__(self, mode: Mode, file: Path, changes: Changes) -> None:
        self._mode = mode
        self._file = file
        self._changes = changes

    def get(self) -> Mode:
        return self._mode

    def refresh(self, modes: Modes) -> None:
        """Takes the mode of the same name from changed modes."""
        self._mode = modes[self._mode.name]

    def set(self, mode: Mode) -> None:
        """Applies to the next request and outlives a restart of the daemon.

        Raises:
            OSError: the choice could not be saved; the old mode stays.
        """
        save(mode, self._file)
        self._mode = mode
        self._changes.notify()
