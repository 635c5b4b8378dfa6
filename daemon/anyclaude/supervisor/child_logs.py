"""What a child writes to stderr, in our own log and as the tail shown with its last exit."""

import json
import logging
from typing import Any, Final

import structlog

TAIL_BYTES: Final = 8 * 1024

# Keys that our own processors set again, and those that would make structlog look for a traceback.
_OURS: Final = frozenset({"event", "level", "logger", "timestamp", "exc_info", "stack_info"})


class ChildLog:
    """Logs each line again under the child's name; keeps the last 8 KiB as they were."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tail = bytearray()

    @property
    def tail(self) -> str:
        return self._tail.decode(errors="replace")

    def line(self, line: bytes) -> None:
        self._tail += line + b"\n"
        del self._tail[:-TAIL_BYTES]
        event = _parse(line)
        if event is None:
            self._raw(line)
        else:
            self._again(event)

    def _raw(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            _logger(self._name).warning("raw output", worker=self._name, text=text)

    def _again(self, event: dict[str, Any]) -> None:
        fields = {key: value for key, value in event.items() if key not in _OURS}
        fields["worker"] = self._name
        level = logging.getLevelNamesMapping().get(str(event.get("level", "")).upper())
        logger = _logger(str(event.get("logger") or self._name))
        logger.log(level or logging.INFO, str(event["event"]), **fields)


def _logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
