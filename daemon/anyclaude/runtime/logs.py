"""Logs: readable lines on a terminal, one JSON object per line everywhere else.

Logs of libraries (grpc, uvicorn, httpx, mlx-lm) go through the same renderer. Prompts and
credentials are never passed to a logger; `redact` is a second safeguard that blanks known keys.
"""

import contextlib
import io
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from anyclaude.runtime.paths import make_private_folder
from anyclaude.runtime.settings import LogSettings

SECRET_KEYS: Final = frozenset(
    {"authorization", "x-api-key", "api_key", "auth_token", "token", "cookie", "body", "prompt"}
)
# At lower levels these log headers, or far too much.
_NOISY: Final = (
    *("httpx", "httpcore", "httpx2", "httpcore2", "hpack"),
    *("asyncio", "grpc", "filelock", "urllib3"),
)


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blanks values whose key names a secret or a prompt."""
    for key in event.keys() & SECRET_KEYS:
        event[key] = "[redacted]"
    return event


def configure(level: str, *, console: bool | None = None, stream: TextIO = sys.stderr) -> None:
    """Sets up structlog and the standard library's logging at `level`, such as "info".

    Lines are JSON, or readable with `console`; without it that depends on whether `stream` is a
    terminal.
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
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Changes the level of this process."""
    logging.getLogger().setLevel(level.upper())


def formatter(*, pretty: bool) -> logging.Formatter:
    """A formatter for our events and foreign log records alike."""
    renderer: list[structlog.typing.Processor] = (
        # Its default shows the values of local variables, prompts and keys among them.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )


class _PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """A rotating file that only its owner may read, the rotated ones included.

    A file that was removed is made anew, with its folder.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not Path(self.baseFilename).exists():
            self.close()
        super().emit(record)

    def _open(self) -> io.TextIOWrapper:
        make_private_folder(Path(self.baseFilename).parent)
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return io.TextIOWrapper(io.FileIO(file, "a"), self.encoding, write_through=True)


@contextlib.contextmanager
def to_file(file: Path, settings: LogSettings) -> Iterator[None]:
    """Also writes every log record of this process to `file`, as JSON, rotated.

    The daemon rotates its own file because launchd opens a log path once and keeps it open.
    """
    handler = _PrivateRotatingFile(
        file,
        maxBytes=settings.file_max_bytes,
        backupCount=settings.file_count,
        encoding="utf-8",
    )
    handler.setFormatter(formatter(pretty=False))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _shared_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
