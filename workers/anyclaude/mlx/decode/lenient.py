"""Reads JSON as models write it.

Mended: line ends inside strings, trailing commas, brackets left open or closed once too often,
Python literals, several values in a row, a code fence around it all. Never mended: a string left
open, since then text is missing.
"""

import ast
import json
import re
from typing import Any, Final

_CLOSER: Final = {"{": "}", "[": "]"}
_FENCE: Final = re.compile(r"\A\s*```[\w-]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


def read_values(text: str) -> list[Any]:
    """The JSON values in `text`, at least one.

    Raises:
        ValueError: it cannot be read without guessing at what is missing.
    """
    if fenced := _FENCE.match(text):
        text = fenced[1]
    for read in (_strict, _literal, _sequence, _mended):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    raise ValueError("not JSON, and not to be mended")


def is_json(text: str) -> bool:
    """Whether `text` is a JSON object or array without any mending."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def ends_inside_string(text: str) -> bool:
    """Whether `text` is JSON that breaks off within a string."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        return _Brackets().take(text).in_string
    except ValueError:
        return False


def _strict(text: str) -> list[Any]:
    return [json.loads(text, strict=False)]


def _literal(text: str) -> list[Any]:
    value = ast.literal_eval(text)
    if not isinstance(value, dict | list):
        raise ValueError("not an object")
    return [value]


def _sequence(text: str) -> list[Any]:
    decoder = json.JSONDecoder(strict=False)
    values: list[Any] = []
    at = 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
    if not values:
        raise ValueError("empty")
    return values


def _mended(text: str) -> list[Any]:
    brackets = _Brackets().take(text)
    mended = brackets.finished()
    try:
        return [json.loads(mended, strict=False)]
    except ValueError:
        return _literal(mended)


class _Brackets:
    """Follows strings and brackets, leaving out what must not be there."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._open: list[str] = []
        self.in_string = False
        self._escaped = False
        self._done = False

    def take(self, text: str) -> "_Brackets":
        for character in text:
            if self.in_string:
                self._inside(character)
            else:
                self._outside(character)
        return self

    def finished(self) -> str:
        """The text with every bracket closed."""
        if self.in_string:
            raise ValueError("a string is left open")
        self._drop_comma()
        return "".join(self._out) + "".join(_CLOSER[bracket] for bracket in reversed(self._open))

    def _inside(self, character: str) -> None:
        self._out.append(character)
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self.in_string = False

    def _outside(self, character: str) -> None:
        if self._done:
            # One bracket too many is harmless; anything else would be lost.
            if character not in "}] \t\r\n":
                raise ValueError("text behind the value")
            return
        if character == '"':
            self.in_string = True
        elif character in "{[":
            self._open.append(character)
        elif character in "}]":
            self._close(character)
        self._out.append(character)

    def _close(self, character: str) -> None:
        if not self._open or _CLOSER[self._open[-1]] != character:
            raise ValueError("brackets do not match")
        self._drop_comma()
        self._open.pop()
        self._done = not self._open

    def _drop_comma(self) -> None:
        last = len(self._out) - 1
        while last >= 0 and self._out[last].isspace():
            last -= 1
        if last >= 0 and self._out[last] == ",":
            del self._out[last:]
