"""Divides decoded text at markers and stop sequences, whatever pieces it comes in.

Invariants:
- the events for a text do not depend on how it was cut into pieces, but for the borders of `Text`;
- no part of a marker leaves while it may still become one, and nothing else is held back but line
  ends, since line ends that touch a marker belong to the template and not to the content (templates
  write them again when they render the answer as history, so keeping them would change the prompt);
- the marker that ends first wins, the longest of those; at equal length, a stop sequence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anyclaude.workers.mlx.decode.grammar import Edge, Grammar, Mode

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


class Scanner:
    def __init__(self, grammar: Grammar, stop_sequences: Sequence[str], mode: Mode) -> None:
        self._grammar = grammar
        self._stop_sequences = tuple(text for text in stop_sequences if text)
        self.mode = mode
        self._held = ""
        self._stopped = False
        # Just behind a marker, where line ends are dropped.
        self._at_border = mode is Mode.THINKING
        # A call was opened inside thinking, so the end of thinking may come after it.
        self._owes_think_end = False

    def feed(self, text: str) -> Iterator[Event]:
        """Takes the next piece; the iterator must be exhausted before the next call."""
        self._held += text
        while not self._stopped:
            self._drop_border()
            hit = self._first_hit()
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

    def _first_hit(self) -> _Hit | None:
        hits = list(self._hits())
        return min(hits, key=lambda hit: (hit.end, hit.start), default=None)

    def _hits(self) -> Iterator[_Hit]:
        # Stop sequences come first: `min` keeps the first of equals.
        for sequence in self._stops():
            yield from self._find(sequence, None)
        for edge in self._edges():
            yield from self._find(edge.marker, edge)

    def _find(self, marker: str, edge: Edge | None) -> Iterator[_Hit]:
        start = self._held.find(marker)
        if start >= 0:
            yield _Hit(start, start + len(marker), edge, marker)

    def _stops(self) -> Sequence[str]:
        return self._stop_sequences if self.mode is Mode.TEXT else ()

    def _edges(self) -> Sequence[Edge]:
        edges = self._grammar.edges.get(self.mode, ())
        if self._owes_think_end and self.mode is Mode.TEXT and self._grammar.think_end:
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
            self._owes_think_end = left is Mode.THINKING and edge.to is Mode.CALL
        return Switch(left, edge.to, edge.marker)

    def _safe_length(self) -> int:
        markers = [*self._stops(), *(edge.marker for edge in self._edges())]
        longest = max((_overlap(self._held, marker) for marker in markers), default=0)
        safe = len(self._held) - longest
        if self.mode in _TRIMMED:
            safe = len(self._held[:safe].rstrip(_LINE_ENDS))
        return safe

    def _release(self, length: int) -> Iterator[Event]:
        text, self._held = self._held[:length], self._held[length:]
        yield from self._text(text)

    def _text(self, text: str) -> Iterator[Event]:
        if text:
            yield Text(self.mode, text)


def _overlap(text: str, marker: str) -> int:
    """The length of the longest end of `text` that is a proper beginning of `marker`."""
    at = text.find(marker[0], max(0, len(text) - len(marker) + 1))
    while at >= 0:
        if marker.startswith(text[at:]):
            return len(text) - at
        at = text.find(marker[0], at + 1)
    return 0
