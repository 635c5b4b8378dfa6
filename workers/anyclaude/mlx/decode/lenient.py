"""Reads JSON as models write it, and repairs common mistakes.

Repaired are line ends inside strings, trailing commas, missing closing brackets, one closing
bracket too many, Python literals, several values in a row, and a code fence around the whole text.
A string without its end is never repaired, since the text that is missing cannot be known.
"""

import ast
import json
import re
from typing import Any, Final

_CLOSER: Final = {"{": "}", "[": "]"}
# Strings, quotes that begin no whole string, and brackets.
_TOKEN: Final = re.compile(r"""\"(?:\\.|[^"\\])*"|"|[\[\]{}]""", re.DOTALL)
_PYTHON_TOKEN: Final = re.compile(rf"{_TOKEN.pattern}|'(?:\\.|[^'\\])*'|'", re.DOTALL)
_PYTHON_OBJECT: Final = re.compile(r"[\s\[{]*'")
# Llama divides its calls by semicolons.
_BETWEEN: Final = ",; \t\r\n"
_FENCE: Final = re.compile(r"\A\s*```[\w-]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


def read_values(text: str) -> list[Any]:
    """The JSON values in `text`, at least one.

    Raises:
        ValueError: `text` cannot be read without guessing.
    """
    if fenced := _FENCE.match(text):
        text = fenced[1]
    for read in (_strict, _literal, _sequence, _repaired, _each_repaired):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    raise ValueError("not JSON, and not repairable")


def is_json(text: str) -> bool:
    """Whether `text` is a valid JSON object or array."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def values_end(text: str, *, single: bool = False) -> int:
    """The index behind the complete objects and arrays at the beginning of `text`; 0 if none is.

    A superfluous closing bracket behind a value belongs to it.

    Args:
        single: whether only the first value counts.
    """
    token = _PYTHON_TOKEN if _PYTHON_OBJECT.match(text) else _TOKEN
    end = depth = 0
    for match in token.finditer(text):
        is_opener, is_closer = match[0] in _CLOSER, match[0] in _CLOSER.values()
        if depth:
            if match[0] in ('"', "'"):
                # A string without its end.
                break
            depth += is_opener - is_closer
            end = match.end() if depth == 0 else end
        elif text[end : match.start()].strip(_BETWEEN):
            break
        elif is_opener and not (single and end):
            depth = 1
        elif is_closer and end:
            end = match.end()
        else:
            break
    return end


def ends_inside_string(text: str) -> bool:
    """Whether `text` is JSON that ends inside a string."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        return _Repair().read(text).in_string
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
        while at < len(text) and text[at] in _BETWEEN:
            at += 1
    if not values:
        raise ValueError("empty")
    return values


def _repaired(text: str) -> list[Any]:
    repaired = _Repair().read(text).finished()
    try:
        return [json.loads(repaired, strict=False)]
    except ValueError:
        return _literal(repaired)


def _each_repaired(text: str) -> list[Any]:
    values: list[Any] = []
    while text:
        end = values_end(text, single=True)
        if not end or (end == len(text) and not values):
            raise ValueError("not several values")
        values += read_values(text[:end])
        text = text[end:].lstrip(_BETWEEN)
    return values


class _Repair:
    """Copies JSON, adding missing brackets and leaving out commas and brackets that are wrong."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._open: list[str] = []
        self.in_string = False
        self._escaped = False
        self._done = False

    def read(self, text: str) -> "_Repair":
        for character in text:
            if self.in_string:
                self._inside(character)
            else:
                self._outside(character)
        return self

    def finished(self) -> str:
        """The text that was read, with every bracket closed."""
        if self.in_string:
            raise ValueError("a string without its end")
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
            # A superfluous bracket is harmless, but any other text would be lost.
            if character not in "}] \t\r\n":
                raise ValueError("text after the value")
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
