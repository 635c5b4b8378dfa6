"""A parser of server-sent events that takes bytes in any pieces.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Frame:
    """One event as it stood in the stream."""

    name: str
    data: str

    @property
    def event(self) -> dict[str, Any]:
        """The data, which has to be one JSON object of the type that the frame is named after."""
        event = json.loads(self.data)
        assert isinstance(event, dict), f"data is not an object: {self.data}"
        assert event.get("type") == self.name, f"frame {self.name!r} holds {event.get('type')!r}"
        return event


@dataclass
class Parser:
    """Feed it bytes; it gives the frames that they complete."""

    _rest: bytes = b""
    _name: str = ""
    _data: list[str] = field(default_factory=list)
    comments: int = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._line(line.removesuffix(b"\r").decode("utf-8"))

    def _line(self, line: str) -> Iterator[Frame]:
        if not line:
            if self._data:
                yield Frame(self._name, "\n".join(self._data))
            self._name, self._data = "", []
        elif line.startswith(":"):
            self.comments += 1
        else:
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "event":
                self._name = value
            elif key == "data":
                self._data.append(value)

    @property
    def complete(self) -> bool:
        """Whether no frame has begun that did not end."""
        return not self._rest and not self._data


def parse(pieces: Iterable[bytes]) -> list[Frame]:
    """All frames of a whole stream, which must end between two."""
    parser = Parser()
    frames = [frame for piece in pieces for frame in parser.feed(piece)]
    assert parser.complete, f"the stream ends inside a frame: {parser}"
    return frames
