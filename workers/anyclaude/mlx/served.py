"""Which model served last, kept over restarts, so that a change of it can be told.

What a change did to KV caches would otherwise show only as a slow next request.
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
    """The caches of `previous_model` left memory; these of its segments are on disk."""

    previous_model: str
    # Unix time.
    at: float
    disk_records: int
    disk_bytes: int


@dataclass(frozen=True)
class _Served:
    model: str
    # What caches are valid under: the model with its settings and MLX's versions.
    fingerprint: str
    change: ModelChange | None = None


def note_model(
    file: Path, model: str, fingerprint: str, stored: Mapping[str, tuple[int, int]], now: float
) -> ModelChange | None:
    """Notes that `model` serves from now on; returns the latest change, whenever it was.

    Args:
        file: where it is kept; private.
        model: as users know it.
        fingerprint: of its KV caches.
        stored: records and bytes on disk by fingerprint.
        now: Unix time.
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
        told = json.loads(file.read_text())
        change = told["change"]
        known = ModelChange(**change) if change else None
        return _Served(told["model"], told["fingerprint"], known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        # It costs a notice, never a start.
        log.warning("which model served last is not known", why=str(error))
        return None


def _write(file: Path, served: _Served) -> None:
    try:
        write_atomically(file, json.dumps(asdict(served)).encode(), 0o600)
    except OSError as error:
        log.warning("which model serves cannot be noted", why=str(error))
