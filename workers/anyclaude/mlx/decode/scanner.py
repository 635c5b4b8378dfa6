"""Divides decoded text at markers and stop sequences, whatever pieces it comes in.

Invariants:
- the events for a text do not depend on how it was cut into pieces, but for the borders of `Text`;
- no part of a marker leaves while it may still become one, and nothing else is held back but line
  ends, since line ends that touch a marker belong to the template and not to the content (templates
  write them again when they render the answer as history, so keeping them would change the prompt);
- the marker that ends first wins, the longest of those; at equal length, a stop sequence.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anyclaude.mlx.decode.markers import Edge, Grammar, Mode

_LINE_ENDS = "\r\n"
_TRIMMED = frozenset({Mode.TEXT, Mode.THINKING})


@dataclass(frozen=True)
class Text:
    mode: Mode
    text: str


@dataclass(frozen=True)
class Switch:
    """A marker was passed."""

    left: Mode
    entered: Mode
    marker: str


@dataclass(frozen=True)
class Stopped:
    """A stop sequence was found; nothing follows."""

    sequence: str


Event = Text | Switch | Stopped


@dataclass(frozen=True)
class _Hit:
    start: int
    end: int
    edge: Edge | None
    marker: str


class _Markers:
    """All that ends one mode, prepared so that a token costs the same for few markers as for many.

    Clients offer a hundred tools, and each can be a marker.
    """

    def __init__(self, stops: Sequence[str], edges: Sequence[Edge]) -> None:
        # Stop sequences come first: `min` keeps the first of equals.
        self._edges: list[tuple[str, Edge | None]] = [(stop, None) for stop in stops]
        self._edges += [(edge.marker, edge) for edge in edges]
        markers = [marker for marker, _ in self._edges]
        self._any = re.compile("|".join(map(re.escape, markers)) or r"(?!)")
        self._beginnings = {marker[:n] for marker in markers for n in range(1, len(marker))}
        self._longest = max(map(len, markers), default=1) - 1

    def first_hit(self, text: str) -> _Hit | None:
        """The marker that ends first, the longest of those."""
        if not self._any.search(text):
            return None
        return min(self._hits(text), key=lambda hit: (hit.end, hit.start))

    def begun(self, text: str) -> int:
        """The length of the longest end of `text` that may become a marker."""
        lengths = range(min(len(text), self._longest), 0, -1)
        return next((n for n in lengths if text[-n:] in self._beginnings), 0)

    def _hits(self, text: str) -> Iterator[_Hit]:
        for marker, edge in self._edges:
            start = text.find(marker)
            if start >= 0:
                yield _Hit(start, start + len(marker), edge, marker)


class Scanner:
    def __init__(self, grammar: Grammar, stop_sequences: Sequence[str], mode: Mode) -> None:
        self._grammar = grammar
        self._stop_sequences = tuple(text for text in stop_sequences if text)
        self.mode = mode
        self._prepared: dict[tuple[Mode, bool], _Markers] = {}
        self._held = ""
        self._stopped = False
        # Just behind a marker, where line ends are dropped.
        self._at_border = mode is Mode.THINKING
        # A call was opened inside thinking, so the end of thinking may come after it.
        self.owes_think_end = False

    def feed(self, text: str) -> Iterator[Event]:
        """Takes the next piece; the iterator must be exhausted before the next call."""
        self._held += text
        while not self._stopped:
            self._drop_border()
            hit = self._markers().first_hit(self._held)
            if hit is None:
                break
            yield from self._pass(hit)
        if not self._stopped:
            yield from self._release(self._safe_length())

    def flush(self) -> Iterator[Event]:
        """Gives out what was held back, when no more text comes."""
        if not self._stopped:
            yield from self._release(len(self._held))

    def stay(self, mode: Mode) -> None:
        """Takes back the switch that was just given out: its marker was none."""
        self.mode = mode

    def back_up(self, text: str) -> None:
        """Reads `text` again, before what comes next, as what follows a marker in plain text."""
        self._held = text + self._held
        self.mode = Mode.TEXT
        self._at_border = True

    def discard(self) -> None:
        """Forgets what was held back, the beginning of an end marker, as if all of it had come."""
        self._held = ""
        self.mode = Mode.TEXT

    def _drop_border(self) -> None:
        if self._at_border and self.mode in _TRIMMED:
            self._held = self._held.lstrip(_LINE_ENDS)
            self._at_border = not self._held

    def _markers(self) -> _Markers:
        key = (self.mode, self.owes_think_end)
        if key not in self._prepared:
            stops = self._stop_sequences if self.mode is Mode.TEXT else ()
            self._prepared[key] = _Markers(stops, self._edges())
        return self._prepared[key]

    def _edges(self) -> Sequence[Edge]:
        edges = self._grammar.edges.get(self.mode, ())
        if self.owes_think_end and self.mode is Mode.TEXT and self._grammar.think_end:
            return [*edges, Edge(self._grammar.think_end, Mode.TEXT)]
        return edges

    def _pass(self, hit: _Hit) -> Iterator[Event]:
        before, self._held = self._held[: hit.start], self._held[hit.end :]
        if hit.edge is None:
            self._stopped = True
            yield from self._text(before)
            yield Stopped(hit.marker)
            return
        yield from self._text(before.rstrip(_LINE_ENDS) if self.mode in _TRIMMED else before)
        yield self._enter(hit.edge)
        if hit.edge.kept:
            yield Text(self.mode, hit.marker)

    def _enter(self, edge: Edge) -> Switch:
        left, self.mode = self.mode, edge.to
        self._at_border = True
        if Mode.THINKING in (left, edge.to) or edge.marker == self._grammar.think_end:
            self.owes_think_end = left is Mode.THINKING and edge.to is Mode.CALL
        return Switch(left, edge.to, edge.marker)

    def _safe_length(self) -> int:
        safe = len(self._held) - self._markers().begun(self._held)
        if self.mode in _TRIMMED:
            safe = len(self._held[:safe].rstrip(_LINE_ENDS))
        return safe

    def _release(self, length: int) -> Iterator[Event]:
        text, self._held = self._held[:length], self._held[length:]
        yield from self._text(text)

    def _text(self, text: str) -> Iterator[Event]:
        if text:
            yield Text(self.mode, text)
