"""Separates thoughts from text where a server does not: `<think>...</think>` at the beginning."""

from typing import Final

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"

# Whether it is a thought, and its text.
Piece = tuple[bool, str]


class ThoughtSplitter:
    """Splits text in pieces into thoughts and text; delays what may become a tag.

    White space is delayed until other text comes: an empty block could not be undone.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._at_start = True
        self._inside = False
        self._thought_seen = False
        self._close_seen = False
        self._text_seen = False

    def feed(self, text: str) -> list[Piece]:
        if self._text_seen:
            # From now on nothing is delayed.
            return [(False, text)] if text else []
        self._pending += text
        pieces: list[Piece] = []
        if self._at_start:
            self._look_for_open()
        if self._inside:
            pieces += self._look_for_close()
        if not (self._at_start or self._inside):
            pieces += self._text()
        return pieces

    def finish(self) -> list[Piece]:
        """The delayed text, since something else follows now."""
        pending, was_inside = self._pending, self._inside
        self._pending, self._at_start, self._inside = "", False, False
        if was_inside:
            return [(True, pending)] if pending else []
        return [(False, pending)] if pending.strip() else []

    def _look_for_open(self) -> None:
        begin = self._pending.lstrip()
        if begin.startswith(_OPEN):
            self._at_start, self._inside = False, True
            self._pending = begin.removeprefix(_OPEN)
        elif begin.startswith(_CLOSE):
            # The thoughts came in a field of their own.
            self._at_start, self._close_seen = False, True
            self._pending = begin.removeprefix(_CLOSE)
        elif not (_OPEN.startswith(begin) or _CLOSE.startswith(begin)):
            self._at_start = False

    def _look_for_close(self) -> list[Piece]:
        thought, tag, text = self._pending.partition(_CLOSE)
        if tag:
            self._inside, self._close_seen, self._pending = False, True, text
            return self._thought(thought.rstrip("\n"))
        cut = _certain(self._pending)
        thought, self._pending = self._pending[:cut], self._pending[cut:]
        return self._thought(thought)

    def _thought(self, text: str) -> list[Piece]:
        if not self._thought_seen:
            text = text.lstrip("\n")
        if not text:
            return []
        self._thought_seen = True
        return [(True, text)]

    def _text(self) -> list[Piece]:
        if self._close_seen:
            self._pending = self._pending.lstrip("\n")
        if not self._pending.strip():
            return []
        self._text_seen = True
        text, self._pending = self._pending, ""
        return [(False, text)]


def _certain(text: str) -> int:
    """How many characters of `text` cannot belong to the closing tag and its line."""
    tag = next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)
    return len(text[: len(text) - tag].rstrip("\n"))
