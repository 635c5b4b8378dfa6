"""The modes, their historic names, and the choice that outlives a restart.

Precedence of the mode at start: flag, environment, what `anyclaudectl mode` last set, config file,
default.
"""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from anyclaude.daemon.changes import Changes
from anyclaude.runtime.mode_names import HISTORIC, current_name
from anyclaude.runtime.settings import LoadedSettings, Origin

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_NO_RELAY: Final = (
    "it needs the relay worker, which is not part of this build. Use mlx-lm: `anyclaudectl mode "
    "mlx-lm`"
)


@dataclass(frozen=True)
class Mode:
    name: str
    description: str
    # The child that answers it; empty when this build has none.
    worker: str = ""

    @property
    def missing(self) -> str:
        """Why no worker of this build can serve it; empty when one can."""
        return "" if self.worker else _NO_RELAY


MODES: Final[Mapping[str, Mode]] = {
    mode.name: mode
    for mode in (
        Mode("mlx-lm", "the local model on MLX, with its KV cache and tools", worker="mlx"),
        Mode("lmstudio", "LM Studio on this machine"),
        Mode("claude", "the real Claude API, bytes passed through"),
        Mode("vllm", "a vLLM server"),
        Mode("llama-cpp", "a llama.cpp server"),
        Mode("ollama", "an Ollama server"),
        Mode("openrouter", "OpenRouter"),
        Mode("auto", "a backend chosen per request by a written policy"),
    )
}


class UnknownModeError(Exception):
    """No mode has this name; the message names those that exist."""


class ModeMissingError(Exception):
    """The mode exists but this build cannot serve it; the message says why and what to do."""


def resolve(word: str) -> tuple[Mode, str]:
    """The mode meant by `word` and, for a historic word, a warning.

    Raises:
        UnknownModeError
    """
    name, warning = current_name(word)
    if name not in MODES:
        raise UnknownModeError(_explain_unknown(word))
    return MODES[name], warning


def _explain_unknown(word: str) -> str:
    close = difflib.get_close_matches(word, [*MODES, *HISTORIC], n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f'There is no mode "{word}".{hint} Known modes: {", ".join(MODES)}.'


def servable(word: str) -> tuple[Mode, str]:
    """As `resolve`, for modes that a worker of this build serves.

    Raises:
        UnknownModeError
        ModeMissingError
    """
    mode, warning = resolve(word)
    if mode.missing:
        raise ModeMissingError(f"Mode {mode.name} cannot be used: {mode.missing}.")
    return mode, warning


def initial(loaded: LoadedSettings, mode_file: Path) -> Mode:
    """The mode to start with.

    Raises:
        UnknownModeError: the settings name none of ours.
        ModeMissingError: the settings name one that this build cannot serve.
    """
    configured, warning = servable(loaded.settings.mode)
    if warning:
        _log.warning("historic mode name", hint=warning)
    if loaded.origins.get("mode") in (Origin.FLAG, Origin.ENVIRONMENT):
        return configured
    return _kept(mode_file) or configured


def keep(mode: Mode, mode_file: Path) -> None:
    """Remembers `mode`; the file holds the old or the new choice, never half of one."""
    temporary = mode_file.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"mode": mode.name}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(mode_file)


def _kept(mode_file: Path) -> Mode | None:
    try:
        word = json.loads(mode_file.read_text(encoding="utf-8"))["mode"]
        return servable(word)[0]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, UnknownModeError, ModeMissingError) as error:
        # A doubtful choice must not keep the service down; the configured one stands.
        _log.warning("kept mode ignored", file=str(mode_file), why=str(error))
        return None


class CurrentMode:
    """The mode that requests take now."""

    def __init__(self, mode: Mode, file: Path, changes: Changes) -> None:
        self._mode = mode
        self._file = file
        self._changes = changes

    def get(self) -> Mode:
        return self._mode

    def set(self, mode: Mode) -> None:
        """Takes effect for the next request and outlives a restart.

        Raises:
            OSError: the choice could not be kept; the old one stands.
        """
        keep(mode, self._file)
        self._mode = mode
        self._changes.notify()
