"""Logs: console on a terminal, one JSON object a line anywhere else.

Library logs (grpc, uvicorn, httpx, mlx-lm) go through the same renderer. Prompts and
credentials are never passed to a logger; `redact` is the second line of defence and blanks known
keys.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

SECRET_KEYS: Final = frozenset(
    {"authorization", "x-api-key", "api_key", "auth_token", "token", "cookie", "body", "prompt"}
)


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blanks values whose key names a secret or a prompt."""
    for key in event.keys() & SECRET_KEYS:
        event[key] = "[redacted]"
    return event


def configure(level: str, *, console: bool | None = None, stream: TextIO = sys.stderr) -> None:
    """Sets up structlog and the standard library's logging.

    Args:
        level: "debug", "info", "warning" or "error".
        console: readable lines instead of JSON; None asks whether `stream` is a terminal.
        stream: where lines go.
    """
    shared = _shared_processors()
    pretty = stream.isatty() if console is None else console
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(pretty=pretty))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "asyncio", "grpc", "filelock", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def formatter(*, pretty: bool) -> logging.Formatter:
    """A formatter for our events and foreign log records alike."""
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )


def _shared_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
