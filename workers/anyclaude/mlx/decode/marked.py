"""Reads tool calls whose arguments are one JSON object, with texts of the family around it.

A call ends where its object ends, so what follows is either the next call or words.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from re import Pattern
from typing import Final, Self

from anyclaude.mlx.decode.lenient import ends_inside_string, read_values, values_end
from anyclaude.mlx.decode.tagged import TaggedCall

NAME: Final = r"(?P<name>[\w.:/-]+?)"


@dataclass(frozen=True)
class MarkedDialect:
    """The texts around the arguments in one family of models."""

    # Matches all that stands before the arguments, with the group `name`.
    head: Pattern[str]
    # Matches all that stands behind them.
    tail: Pattern[str]

    @classmethod
    def of(cls, head: str, tail: str = "") -> Self:
        return cls(re.compile(rf"\s*{head}\s*(?=\{{)", re.DOTALL), re.compile(rf"\s*{tail}"))

    def matches(self, text: str) -> bool:
        """Whether `text` begins with a call of this dialect."""
        return self.head.match(text) is not None

    def ends_inside_value(self, text: str) -> bool:
        """Whether `text` ends inside a string of the arguments."""
        end = self._calls_end(text)
        match = self.head.match(text, end)
        return match is not None and ends_inside_string(text[match.end() :])

    def divided(self, text: str) -> tuple[str, str]:
        """Divides `text` into the calls at its beginning and the words behind them.

        There are no words if it is uncertain where the calls end, so that nothing is guessed.
        """
        end = self._calls_end(text)
        if end == 0 or self.head.search(text, end):
            return text, ""
        return text[:end], text[end:]

    def read(self, text: str) -> Iterator[TaggedCall]:
        """The calls in `text`.

        Raises:
            ValueError: some of the text belongs to no call.
        """
        at = 0
        while text[at:].strip():
            head = self.head.match(text, at)
            if head is None:
                raise ValueError("text that belongs to no call")
            # An object without its end is the last one.
            end = _object_end(text, head.end()) or len(text)
            [arguments] = read_values(text[head.end() : end])
            yield TaggedCall(head["name"], dict(arguments), untyped=False)
            at = self._behind(text, end)

    def _calls_end(self, text: str) -> int:
        """The index behind the complete calls at the beginning of `text`."""
        at = 0
        while head := self.head.match(text, at):
            end = _object_end(text, head.end())
            if end is None:
                break
            at = self._behind(text, end)
        return at

    def _behind(self, text: str, end: int) -> int:
        match = self.tail.match(text, end)
        return match.end() if match else end


def _object_end(text: str, start: int) -> int | None:
    end = values_end(text[start:], single=True)
    return start + end if end else None
