"""An incremental parser of event streams (HTML Living Standard, section 9.2.6).

Libraries split lines at every Unicode line separator, and the text of models contains those, so
this parser is our own. Invariants:
- The events do not depend on how the bytes are cut into chunks.
- The work is linear in the number of bytes, however they are cut.
- Two deliberate differences: `finish` returns an event even if its closing blank line is missing,
  since some servers leave that line out after their last event; and a field `error` is an event.
"""

import re
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"


class StreamTooLargeError(Exception):
    """One event is larger than any response can be."""


class ServerEvent(NamedTuple):
    # Empty if the stream names none.
    name: str
    data: str


class SseParser:
    """Bytes in, events out."""

    def __init__(self) -> None:
        # Parts of a line whose end has not come.
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        # Whether the last chunk ended with CR: an LF that follows belongs to the same line end.
        self._after_cr = False
        self._at_start = True
        self._name = ""
        self._data: list[str] = []
        self._event_bytes = 0

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that `chunk` completes; raises StreamTooLargeError."""
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        self._pieces.append(chunk)
        self._waiting_bytes += len(chunk)
        events: list[ServerEvent] = []
        if b"\r" in chunk:
            events = self._parse_lines(_LINE_END.split(b"".join(self._pieces)))
        elif b"\n" in chunk:
            events = self._parse_lines(b"".join(self._pieces).split(b"\n"))
        if self._waiting_bytes + self._event_bytes > MAX_EVENT_BYTES:
            raise StreamTooLargeError(f"one event is larger than {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[ServerEvent]:
        """The last event, if its closing blank line is missing."""
        return self._parse_lines([b"".join(self._pieces), b"", b""])

    def _parse_lines(self, lines: list[bytes]) -> list[ServerEvent]:
        """Parses lines, the last of which is not yet complete."""
        rest = lines.pop()
        self._pieces, self._waiting_bytes = [rest], len(rest)
        if self._at_start and lines:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        events: list[ServerEvent] = []
        for line in lines:
            if line:
                self._line(line)
                continue
            if self._data:
                events.append(ServerEvent(self._name, "\n".join(self._data)))
            self._data, self._name, self._event_bytes = [], "", 0
        return events

    def _line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode(errors="replace")
        if name == b"data":
            self._data.append(text)
            self._event_bytes += len(line)
        elif name == b"event":
            self._name = text
        elif name == b"error" and text.startswith("{"):
            # Older versions of llama.cpp send errors in a field of that name.
            self._name = "error"
            self._data.append(text)
            self._event_bytes += len(line)
        # Comments, ids and retry times are not needed.
