"""Request records on disk, so that they outlive the daemon: one JSON document per line.

The file is readable by its owner only, and like the records themselves it contains no prompts. It
grows by one line per request, and is cut to the newest `max_records` when it has twice as many.
Nothing depends on it: what cannot be written or read is logged, and the service goes on.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog
from google.protobuf.json_format import MessageToJson, Parse, ParseError

from anyclaude.frontend.v1.frontend_pb2 import RequestRecord
from anyclaude.runtime.paths import write_atomically

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class History:
    def __init__(self, file: Path, max_records: int) -> None:
        self._file = file
        self._max_records = max_records
        self._lines = 0
        self._is_failing = False

    def read(self) -> list[RequestRecord]:
        """The records of earlier runs, oldest first; the file then holds no others."""
        try:
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning("request history ignored", file=str(self._file), why=str(error))
            return []
        records = list(self._parsed(lines))[-self._max_records :]
        if len(records) < len(lines):
            self._replace(map(_line, records))
        self._lines = len(records)
        return records

    def add(self, record: RequestRecord) -> None:
        """Appends a record."""
        self._write(_line(record))
        self._lines += 1
        if self._lines >= 2 * self._max_records:
            self.read()

    def _parsed(self, lines: Iterable[str]) -> Iterator[RequestRecord]:
        """The records of the lines that can be read; a crash or a full disk may cut one."""
        for number, line in enumerate(lines, 1):
            try:
                yield Parse(line, RequestRecord(), ignore_unknown_fields=True)
            except ParseError as error:
                _log.warning("line of the request history dropped", line=number, why=str(error))

    def _write(self, line: str) -> None:
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            self._failed(error)
        else:
            self._is_failing = False

    def _replace(self, lines: Iterable[str]) -> None:
        try:
            write_atomically(self._file, "".join(lines).encode(), 0o600)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        # Once, not for every request while the disk is full.
        if not self._is_failing:
            _log.warning("request history not written", file=str(self._file), why=str(error))
        self._is_failing = True


def _line(record: RequestRecord) -> str:
    return MessageToJson(record, indent=None) + "\n"
