"""The state of a call that is being written."""

from dataclasses import dataclass, field

from anyclaude.mlx.decode.constraint import ConstrainedCallReader


@dataclass
class ConstrainedCall:
    """The state of the calls between a start and an end marker that a grammar constrains."""

    reader: ConstrainedCallReader
    # Whether the arguments are sent as they arrive.
    streamed: bool
    # The tool whose arguments are being written; None between calls.
    name: str | None = None
    pieces: list[str] = field(default_factory=list)

    @property
    def written(self) -> str:
        """The arguments so far."""
        return "".join(self.pieces)


@dataclass
class BufferedCall:
    """The text of a call that is being written."""

    # Whether an end marker inside a value lets the call continue.
    may_continue: bool = True
    _parts: list[str] = field(default_factory=list)
    _length: int = 0
    # Start and end of the first end marker that did not end the call.
    _first_marker: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def was_continued(self) -> bool:
        return self._first_marker is not None

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def add_marker(self, marker: str) -> None:
        """Adds an end marker that is part of a value."""
        if self._first_marker is None:
            self._first_marker = (self._length, self._length + len(marker))
        self.add(marker)

    def divided(self) -> tuple[str, str]:
        """The text before and after the first end marker."""
        assert self._first_marker is not None
        start, end = self._first_marker
        return self.text[:start], self.text[end:]
