"""How fast each mode answers, kept across restarts of the daemon.

What the journal tells wins; until it tells something again, what it told at the last stop stands
in, for the same model. No word of any request is in the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import structlog
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from anyclaude.control.v1.control_pb2 import Speed
from anyclaude.runtime.files import write_atomically
from anyclaude.supervisor.measured import speed
from anyclaude.supervisor.records import Journal

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Speeds:
    def __init__(self, journal: Journal, max_records: int, file: Path) -> None:
        self._journal = journal
        self._max_records = max_records
        self._file = file
        # By mode: the model, and how fast it was.
        self._kept = _read(file)

    def of(self, mode: str, model: str) -> Speed | None:
        """None where nothing is known of `mode` with this model."""
        now = speed(self._journal.newest(self._max_records), mode)
        if now is not None:
            return now
        kept = self._kept.get(mode)
        return kept[1] if kept is not None and kept[0] == model else None

    def keep(self, models: Mapping[str, str]) -> None:
        """Writes what is known now.

        Args:
            models: the model of each mode.
        """
        known = {mode: (model, self.of(mode, model)) for mode, model in models.items()}
        told = {
            mode: {"model": model, "speed": MessageToDict(found)}
            for mode, (model, found) in known.items()
            if found is not None
        }
        try:
            write_atomically(self._file, json.dumps(told).encode(), 0o600)
        except OSError as error:
            # Nothing depends on it: the next requests tell anew.
            _log.warning("speeds not kept", file=str(self._file), why=str(error))


def _read(file: Path) -> dict[str, tuple[str, Speed]]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {
            mode: (kept["model"], ParseDict(kept["speed"], Speed())) for mode, kept in told.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ParseError) as error:
        _log.warning("kept speeds ignored", file=str(file), why=str(error))
        return {}
