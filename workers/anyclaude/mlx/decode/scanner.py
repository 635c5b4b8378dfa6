"""Divides the decoded text of an answer at markers and stop sequences.

Invariants:
- The events do not depend on the pieces in which the text arrives, except where one `Text` ends and
  the next begins.
- Text that may be the beginning of a marker is delayed until that is decided. Line ends are delayed
  too, because line ends beside a marker belong to the template and not to the content: the template
  writes them again when it renders the answer as history, so keeping them would change the prompt.
  Nothing else is delayed.
- Of several markers the one that ends first counts, of those the longest, and of equally long ones
  a stop sequence.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from anyclaude.mlx.decode.markers import Markers, Mode, Transition

_LINE_ENDS = "\r\n"
_TRIMMED = frozenset({Mode.TEXT, Mode.THINKING})


@dataclass(frozen=True)
class Text:
    mode: Mode
    text: str


@dataclass(frozen=True)
class Switch:
    """A marker ended one mode and began another; both may be the same."""

    left: Mode
    entered: Mode
    marker: str
    # Whether the marker is also the beginning of the text that follows.
    kept: bool = False
    # The line ends before the marker, which are not sent as text.
    line_ends: str = ""


@dataclass(frozen=True)
class Stopped:
    """A stop sequence was found, which ends the answer."""

    sequence: str


Event = Text | Switch | Stopped


@dataclass(frozen=True)
class _Hit:
    start: int
    end: int
    # None for a stop sequence.
    transition: Transition | None
    marker: str


class _Search:
    """Searches for everything that ends one mode, at the same cost for few markers and for many.

    Clients offer a hundred tools, and each of them can be a marker.
    """

    def __init__(self, stops: Sequence[str], transitions: Sequence[Transition]) -> None:
        # Stop sequences come first, since `min` keeps the first of equals.
        self._wanted: list[tuple[str, Transition | None]] = [(stop, None) for stop in stops]
        self._wanted += [(transition.marker, transition) for transition in transitions]
        markers = [marker for marker, _ in self._wanted]
        self._any = re.compile("|".join(map(re.escape, markers)) or r"(?!)")
        self._beginnings = {marker[:n] for marker in markers for n in range(1, len(marker))}
        self._longest = max(map(len, markers), default=1) - 1

    def first_hit(self, text: str) -> _Hit | None:
        """The marker that ends first, the longest of those."""
        if not self._any.search(text):
            return None
        return min(self._hits(text), key=lambda hit: (hit.end, hit.start))

    def partial_length(self, text: str) -> int:
        """The length of the longest suffix of `text` that is an incomplete marker."""
        lengths = range(min(len(text), self._longest), 0, -1)
        return next((n for n in lengths if text[-n:] in self._beginnings), 0)

    def _hits(self, text: str) -> Iterator[_Hit]:
        for marker, transition in self._wanted:
            start = text.find(marker)
            if start >= 0:
                yield _Hit(start, start + len(marker), transition, marker)


class Scanner:
    """Scans one answer. The iterators it returns must be exhausted before its next call."""

    def __init__(
        self,
        markers: Markers,
        stop_sequences: Sequence[str],
        is_text: Callable[[Transition, Mode, str], bool] = lambda *_: False,
    ) -> None:
        """
        Args:
            is_text: whether a marker is only mentioned, given the mode in which it was found and
                the text before it that has not been sent as an event yet.
        """
        self._markers = markers
        self._is_text = is_text
        self._stop_sequences = tuple(text for text in stop_sequences if text)
        self.mode = markers.initial
        self._searches: dict[tuple[Mode, bool], _Search] = {}
        self._pending = ""
        self._stopped = False
        # Whether a marker was just passed, so that line ends are dropped.
        self._at_border = self.mode is Mode.THINKING
        # Whether a call began inside thinking, so that the end of thinking may come after it.
        self.owes_think_end = False

    def feed(self, text: str) -> Iterator[Event]:
        """Scans the next piece of text."""
        self._pending += text
        while not self._stopped:
            self._drop_border()
            hit = self._search().first_hit(self._pending)
            if hit is None:
                break
            before = self._pending[: hit.start]
            if hit.transition and self._is_text(hit.transition, self.mode, before):
                yield from self._release(hit.end)
            else:
                yield from self._pass(hit)
        if not self._stopped:
            yield from self._release(self._safe_length())

    def flush(self) -> Iterator[Event]:
        """Ends the scan; what was delayed is text."""
        if not self._stopped:
            yield from self._release(len(self._pending))

    def undo_switch(self, switch: Switch) -> None:
        """Goes back to the mode before the latest switch, whose marker turned out to be text."""
        self.mode = switch.left

    def rescan(self, text: str) -> None:
        """Scans `text` once more, before what comes next, as plain text after a marker."""
        self._pending = text + self._pending
        self.mode = Mode.TEXT
        self._at_border = True

    def resume_text(self) -> None:
        """Goes on with the text before a call that turned out to be text itself."""
        self.mode = Mode.TEXT
        self._at_border = False

    def discard(self) -> None:
        """Drops what was delayed, as if the end marker that it began were complete."""
        self._pending = ""
        self.mode = Mode.TEXT

    def _drop_border(self) -> None:
        if self._at_border and self.mode in _TRIMMED:
            self._pending = self._pending.lstrip(_LINE_ENDS)
            self._at_border = not self._pending

    def _search(self) -> _Search:
        key = (self.mode, self.owes_think_end)
        if key not in self._searches:
            stops = self._stop_sequences if self.mode is Mode.TEXT else ()
            self._searches[key] = _Search(stops, self._transitions())
        return self._searches[key]

    def _transitions(self) -> Sequence[Transition]:
        transitions = self._markers.transitions.get(self.mode, ())
        if self.owes_think_end and self.mode is Mode.TEXT and self._markers.think_end:
            return [*transitions, Transition(self._markers.think_end, Mode.TEXT)]
        return transitions

    def _pass(self, hit: _Hit) -> Iterator[Event]:
        before, self._pending = self._pending[: hit.start], self._pending[hit.end :]
        if hit.transition is None:
            self._stopped = True
            yield from self._text(before)
            yield Stopped(hit.marker)
            return
        text = before.rstrip(_LINE_ENDS) if self.mode in _TRIMMED else before
        yield from self._text(text)
        yield self._enter(hit.transition, before[len(text) :])
        if hit.transition.kept:
            yield Text(self.mode, hit.marker)

    def _enter(self, transition: Transition, line_ends: str) -> Switch:
        left, self.mode = self.mode, transition.to
        self._at_border = True
        if Mode.THINKING in (left, transition.to) or transition.marker == self._markers.think_end:
            self.owes_think_end = left is Mode.THINKING and transition.to is Mode.CALL
        return Switch(left, transition.to, transition.marker, transition.kept, line_ends)

    def _safe_length(self) -> int:
        safe = len(self._pending) - self._search().partial_length(self._pending)
        if self.mode in _TRIMMED:
            safe = len(self._pending[:safe].rstrip(_LINE_ENDS))
        return safe

    def _release(self, length: int) -> Iterator[Event]:
        text, self._pending = self._pending[:length], self._pending[length:]
        yield from self._text(text)

    def _text(self, text: str) -> Iterator[Event]:
        if text:
            yield Text(self.mode, text)
