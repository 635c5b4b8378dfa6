"""Reads tool calls whose arguments are one JSON object, with texts of the family around it.

A call ends where its object ends, so what follows is either the next call or words.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from re import Pattern
from typing import Any, Final, Self

from anyclaude.mlx.decode.lenient import ends_inside_string, read_values, values_end
from anyclaude.mlx.decode.tagged import TaggedCall

NAME: Final = r"(?P<name>[\w.:/-]+?)"
_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)


@dataclass(frozen=True)
class MarkedDialect:
    """The texts around the arguments in one family of models."""

    # Matches all that stands before the arguments, with the group `name`.
    head: Pattern[str]
    # Matches all that stands behind them.
    tail: Pattern[str]
    # Begins a call behind words too; empty if calls follow one another without words.
    start: str

    @classmethod
    def of(cls, head: str, tail: str = "", *, start: str = "") -> Self:
        begins = r"(?=\{|\"\s*\{)"
        return cls(
            re.compile(rf"\s*{head}\s*{begins}", re.DOTALL), re.compile(rf"\s*{tail}"), start
        )

    def matches(self, text: str) -> bool:
        """Whether `text` begins with a call of this dialect."""
        return self.head.match(text) is not None

    def ends_inside_value(self, text: str) -> bool:
        """Whether `text` ends inside a string of the arguments."""
        end = self._calls_end(text)
        match = self.head.match(text, end)
        if match is None:
            return False
        arguments = text[match.end() :]
        if arguments.startswith('"'):
            return _object_end(arguments, 0) is None
        return ends_inside_string(arguments)

    def divided(self, text: str) -> tuple[str, str]:
        """Divides `text` into the calls at its beginning and the words behind them.

        There are no words if it is uncertain where the calls end, so that nothing is guessed.
        """
        end = self._calls_end(text)
        following = self.head.search(text, end)
        if end == 0 or (following and not self._is_started(following[0])):
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
            yield TaggedCall(head["name"], _object(text[head.end() : end]), untyped=False)
            at = self._behind(text, end)

    def _is_started(self, head: str) -> bool:
        return bool(self.start) and head.lstrip().startswith(self.start)

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


def _object(text: str) -> dict[str, Any]:
    """The object that `text` is, or that is written in the string which `text` is."""
    [arguments] = read_values(json.loads(text) if text.startswith('"') else text)
    return dict(arguments)


def _object_end(text: str, start: int) -> int | None:
    if string := _STRING.match(text, start):
        return string.end()
    if text.startswith('"', start):
        return None
    end = values_end(text[start:], single=True)
    return start + end if end else None
