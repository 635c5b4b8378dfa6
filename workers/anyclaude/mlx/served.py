"""Remembers across restarts which model served last, so that a change of model can be reported.

Without the report, users would notice a change only by a slow next request, since the KV caches of
another model are not used.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from anyclaude.runtime.paths import write_atomically

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ModelChange:
    """A change of model. The caches of the previous model are no longer in memory."""

    previous_model: str
    # Unix time.
    at: float
    # What the disk tier still holds of the previous model.
    disk_records: int
    disk_bytes: int


@dataclass(frozen=True)
class _Served:
    model: str
    # Of the KV caches: it covers the model, its settings and the versions of MLX.
    fingerprint: str
    change: ModelChange | None = None


def note_model(
    file: Path, model: str, fingerprint: str, stored: Mapping[str, tuple[int, int]], now: float
) -> ModelChange | None:
    """Records in `file` that `model` serves from now on.

    `fingerprint` is that of its KV caches, and `stored` has the number of records and bytes on
    disk by fingerprint. Returns the latest change of model, however long ago it was; None if there
    was none.
    """
    last = _read(file)
    if last is not None and last.fingerprint == fingerprint:
        return last.change
    change = None
    if last is not None:
        change = ModelChange(last.model, now, *stored.get(last.fingerprint, (0, 0)))
    _write(file, _Served(model, fingerprint, change))
    return change


def _read(file: Path) -> _Served | None:
    try:
        stored = json.loads(file.read_text())
        change = ModelChange(**stored["change"]) if stored["change"] else None
        return _Served(stored["model"], stored["fingerprint"], change)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Only the report of a change is lost; the worker starts anyway.
        log.warning("which model served last is not known", why=str(error))
        return None


def _write(file: Path, served: _Served) -> None:
    try:
        write_atomically(file, json.dumps(asdict(served)).encode(), 0o600)
    except OSError as error:
        log.warning("which model serves cannot be noted", why=str(error))
