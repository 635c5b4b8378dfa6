"""Thoughts that a server left in the text: `<think>...</think>` at the beginning of an answer."""

from typing import Final

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"

# Whether it is a thought, and its text.
Piece = tuple[bool, str]


class ThoughtSplitter:
    """Text in pieces in, thoughts and text out; holds back what may yet become a tag.

    Text that is only white space waits for words: nobody takes an empty block back.
    """

    def __init__(self) -> None:
        self._held = ""
        self._at_start = True
        self._inside = False
        self._thought_seen = False
        self._words_seen = False

    def feed(self, text: str) -> list[Piece]:
        if self._words_seen:
            # Nothing is held back any more.
            return [(False, text)] if text else []
        self._held += text
        pieces: list[Piece] = []
        if self._at_start:
            self._look_for_open()
        if self._inside:
            pieces += self._look_for_close()
        if not (self._at_start or self._inside):
            pieces += self._words()
        return pieces

    def finish(self) -> list[Piece]:
        """What is held back, now that something else follows."""
        held, was_inside = self._held, self._inside
        self._held, self._at_start, self._inside = "", False, False
        if was_inside:
            return [(True, held)] if held else []
        return [(False, held)] if held.strip() else []

    def _look_for_open(self) -> None:
        begin = self._held.lstrip()
        if begin.startswith(_OPEN):
            self._at_start, self._inside = False, True
            self._held = begin.removeprefix(_OPEN)
        elif not _OPEN.startswith(begin):
            self._at_start = False

    def _look_for_close(self) -> list[Piece]:
        thought, tag, text = self._held.partition(_CLOSE)
        if tag:
            self._inside, self._held = False, text
            return self._thought(thought.rstrip("\n"))
        cut = _certain(self._held)
        thought, self._held = self._held[:cut], self._held[cut:]
        return self._thought(thought)

    def _thought(self, text: str) -> list[Piece]:
        if not self._thought_seen:
            text = text.lstrip("\n")
        if not text:
            return []
        self._thought_seen = True
        return [(True, text)]

    def _words(self) -> list[Piece]:
        if self._thought_seen:
            self._held = self._held.lstrip("\n")
        if not self._held.strip():
            return []
        self._words_seen = True
        words, self._held = self._held, ""
        return [(False, words)]


def _certain(text: str) -> int:
    """Characters of `text` before its end, which may belong to the closing tag and its line."""
    tag = next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)
    return len(text[: len(text) - tag].rstrip("\n"))
