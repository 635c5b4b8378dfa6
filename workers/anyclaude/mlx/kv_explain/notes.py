"""The few facts that outlive the worker, so that a restart does not make a riddle of a change.

Digests of tools and instructions by stable prefix, and which model last answered a session. No
words of any prompt. Losing them costs an explanation and nothing else, so failures are logged and
go no further.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Final

import structlog

from anyclaude.mlx.prompt.summary import PrefixSummary

log = structlog.get_logger(__name__)

_MAX_SESSIONS: Final = 512
_MAX_PREFIXES: Final = 128


class Notes:
    """Kept in `folder`; in memory alone without one. Called on the MLX thread only."""

    def __init__(self, folder: Path | None = None, model: str = "") -> None:
        """
        Args:
            model: names the model and its settings; its caches are valid for no other.
        """
        self._folder = folder
        self._model = model
        self._models: OrderedDict[str, str] = OrderedDict()
        self._prefixes: OrderedDict[str, PrefixSummary] = OrderedDict()
        if folder is not None:
            self._load(folder)

    def prefix(self, stable_digest: str) -> PrefixSummary | None:
        return self._prefixes.get(stable_digest)

    def put_prefix(self, stable_digest: str, facts: PrefixSummary) -> None:
        self._prefixes[stable_digest] = facts
        self._write(f"{self._name(stable_digest)}.prefix", facts.to_json())
        if len(self._prefixes) > _MAX_PREFIXES:
            oldest, _ = self._prefixes.popitem(last=False)
            self._remove(f"{self._name(oldest)}.prefix")

    def was_with_another_model(self, session_id: str) -> bool:
        return self._models.get(session_id, self._model) != self._model

    def put_session(self, session_id: str) -> None:
        if self._models.get(session_id) == self._model:
            return
        self._models[session_id] = self._model
        self._models.move_to_end(session_id)
        if len(self._models) > _MAX_SESSIONS:
            self._models.popitem(last=False)
        self._write("sessions.json", json.dumps(self._models))

    def _name(self, stable_digest: str) -> str:
        """Digests are of tokens, which mean something else to another model."""
        return f"{self._model}-{stable_digest}"

    def _load(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sessions = folder / "sessions.json"
            if sessions.is_file():
                self._models.update(json.loads(sessions.read_text()))
            for file in sorted(folder.glob(f"{self._model}-*.prefix"), key=_age):
                digest = file.stem.removeprefix(f"{self._model}-")
                self._prefixes[digest] = PrefixSummary.from_json(file.read_text())
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cache notes cannot be read", folder=str(folder), why=str(error))

    def _write(self, name: str, text: str) -> None:
        if self._folder is None:
            return
        try:
            draft = self._folder / f".{name}.draft"
            draft.write_text(text)
            draft.replace(self._folder / name)
        except OSError as error:
            log.warning("cache notes cannot be written", file=name, why=str(error))

    def _remove(self, name: str) -> None:
        if self._folder is None:
            return
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("cache notes cannot be removed", file=name, why=str(error))


def _age(file: Path) -> float:
    return file.stat().st_mtime
