"""An incremental parser of event streams (HTML Living Standard, section 9.2.6).

Own code, since the libraries at hand split lines at every line end that Unicode knows, and model
text holds those. Invariants:
- The events do not depend on how the bytes are cut into chunks.
- Work is linear in the bytes, whatever the chunks.
- One deliberate difference: an event whose closing blank line is missing at the end of the stream
  is given by `finish`, since servers forget that line after their last event.
"""

import re
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"


class StreamTooLargeError(Exception):
    """One event is larger than any answer can be."""


class ServerEvent(NamedTuple):
    # Empty where the stream names none.
    name: str
    data: str


class SseParser:
    """Bytes in, events out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Everything before it is known to hold no line end.
        self._scanned = 0
        # A line end was a CR at the end of a chunk: an LF that follows belongs to it.
        self._after_cr = False
        self._at_start = True
        self._name = ""
        self._data: list[str] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that `chunk` completes.

        Raises:
            StreamTooLargeError
        """
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._buffer += chunk
        if self._at_start and not self._skip_bom():
            return []
        events = self._take_lines()
        if len(self._buffer) + self._held_bytes > MAX_EVENT_BYTES:
            raise StreamTooLargeError(f"one event is larger than {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[ServerEvent]:
        """What an unclosed last event holds."""
        line, self._buffer = bytes(self._buffer), bytearray()
        events = self._line(line) if line else []
        return events + self._dispatch()

    def _skip_bom(self) -> bool:
        """False while the first bytes may yet become a byte order mark."""
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._at_start = False
        return True

    def _take_lines(self) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        start = 0
        for end in _LINE_END.finditer(self._buffer, self._scanned):
            events += self._line(bytes(self._buffer[start : end.start()]))
            start = end.end()
        self._after_cr = start == len(self._buffer) > 0 and self._buffer.endswith(b"\r")
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        return events

    def _line(self, line: bytes) -> list[ServerEvent]:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode(errors="replace")
        if name == b"data":
            self._data.append(text)
            self._held_bytes += len(line)
        elif name == b"event":
            self._name = text
        # Comments, ids and retry times say nothing here.
        return []

    def _dispatch(self) -> list[ServerEvent]:
        data, name = self._data, self._name
        self._data, self._name, self._held_bytes = [], "", 0
        return [ServerEvent(name, "\n".join(data))] if data else []
