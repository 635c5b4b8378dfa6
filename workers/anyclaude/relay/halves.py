"""Joins characters that a server cut into two halves of a surrogate pair.

Servers that decode one token at a time send the halves of an emoji in two pieces. A half without
the other becomes U+FFFD: no valid JSON could carry it to the client and back.
"""

import re
from typing import Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HIGH: Final = re.compile("[\ud800-\udbff]$")
LOST: Final = "\ufffd"


def without_halves(text: str) -> str:
    """A whole text, with U+FFFD in place of each half of a character."""
    halves = Halves()
    return halves.feed(text) + halves.finish()


class Halves:
    """Text in pieces, in and out."""

    def __init__(self) -> None:
        self._high = ""

    def feed(self, text: str) -> str:
        """The text without a half at its end, whose other half may follow."""
        text = self._high + text
        self._high = ""
        if not _SURROGATE.search(text):
            return text
        if found := _HIGH.search(text):
            self._high, text = found[0], text[: found.start()]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def finish(self) -> str:
        """What stands for a half that was left over."""
        lost, self._high = bool(self._high), ""
        return LOST if lost else ""
