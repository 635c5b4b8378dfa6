"""Reads arguments as Gemma's templates write them: like JSON, but with bare keys and other quotes.

Keys have no quotes, and strings stand between quote marks of the family's own, without escapes. The
parsers of mlx-lm do not read all of it: one ends a call at the first brace inside a string, and
none reads a key with a hyphen.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from anyclaude.mlx.decode.lenient import read_values, values_end

_HEAD: Final = re.compile(r"\s*call:(?P<name>[^\s{}]+)\s*(?=\{)")
_OPENER: Final = {"}": "{", "]": "["}
_DELIMITERS: Final = "{}[],:"
_PYTHON_LITERALS: Final = {"None": "null", "True": "true", "False": "false"}


def read_bare_keys(text: str, quote: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the arguments of each call in `text`.

    Raises:
        ValueError: some of the text belongs to no call, or an object is incomplete.
    """
    while text.strip():
        head = _HEAD.match(text)
        if head is None:
            raise ValueError("text that belongs to no call")
        arguments, text = _object(text[head.end() :], quote)
        yield head["name"], arguments


def divided(text: str, quote: str) -> tuple[str, str]:
    """Divides `text` into the calls at its beginning and the words behind them."""
    at = 0
    while head := _HEAD.match(text, at):
        length = _object_length(text[head.end() :], quote)
        if not length:
            break
        at = head.end() + length
    return (text[:at], text[at:]) if at and not _HEAD.search(text, at) else (text, "")


def _object_length(text: str, quote: str) -> int:
    """The length of the object at the beginning of `text`; 0 if it is incomplete."""
    if quote not in text:
        return values_end(text, single=True)
    reader = BareKeyReader(quote)
    try:
        _, rest = reader.read(text)
    except ValueError:
        return 0
    return len(text) - len(rest) if reader.done else 0


def ends_inside_quotes(text: str, quote: str) -> bool:
    """Whether `text` ends inside a string."""
    return bool(text.count(quote) % 2)


def _object(text: str, quote: str) -> tuple[dict[str, Any], str]:
    if quote not in text and '"' in text:
        # Some models write real JSON instead, since they were trained on more of it.
        [value] = read_values(text)
        return dict(value), ""
    reader = BareKeyReader(quote)
    written, rest = reader.read(text)
    if not reader.done:
        raise ValueError("an object without its end")
    return json.loads(written, object_pairs_hook=_once), rest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice, and either could be meant")
    return found


class BareKeyReader:
    """Translates one object to JSON while it is being written."""

    def __init__(self, quote: str) -> None:
        self._quote = quote
        self._brackets: list[str] = []
        self._in_string = False
        self._at_key = False
        self.done = False

    def read(self, text: str) -> tuple[str, str]:
        """Translates as much of `text` as is certain already.

        Returns:
            A piece of JSON, and the rest of `text`, which has to come again with what follows it.

        Raises:
            ValueError: brackets do not match.
        """
        pieces = []
        while text and not self.done:
            piece, rest = self._inside(text) if self._in_string else self._outside(text)
            pieces.append(piece)
            if len(rest) == len(text):
                break
            text = rest
        return "".join(pieces), text

    def _inside(self, text: str) -> tuple[str, str]:
        """Translates text of a string, except an end that may be the start of a quote mark."""
        at = text.find(self._quote)
        if at < 0:
            safe = len(text) - partial_length(text, self._quote)
            return escaped(text[:safe]), text[safe:]
        self._in_string = False
        return escaped(text[:at]) + '"', text[at + len(self._quote) :]

    def _outside(self, text: str) -> tuple[str, str]:
        if text.startswith(self._quote):
            self._in_string = True
            return '"', text[len(self._quote) :]
        if self._quote.startswith(text):
            return "", text
        if text[0] in _DELIMITERS:
            return self._delimiter(text[0]), text[1:]
        ends = [at for mark in (*_DELIMITERS, self._quote) if (at := text.find(mark)) >= 0]
        if not ends:
            return "", text
        return self._word(text[: min(ends)].strip()), text[min(ends) :]

    def _delimiter(self, character: str) -> str:
        match character:
            case "{" | "[":
                self._brackets.append(character)
                self._at_key = character == "{"
            case "}" | "]":
                if not self._brackets or self._brackets.pop() != _OPENER[character]:
                    raise ValueError("brackets do not match")
                self._at_key = False
                self.done = not self._brackets
            case ",":
                self._at_key = bool(self._brackets) and self._brackets[-1] == "{"
                return ", "
            case _:
                self._at_key = False
                return ": "
        return character

    def _word(self, word: str) -> str:
        if not word:
            return ""
        return _quoted(word) if self._at_key else _literal(word)


def partial_length(text: str, mark: str) -> int:
    """The length of the longest suffix of `text` that is an incomplete beginning of `mark`."""
    lengths = range(min(len(text), len(mark) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(mark[:n])), 0)


def _literal(word: str) -> str:
    """A number, boolean or null as JSON; anything else is a string whose quotes are missing."""
    word = _PYTHON_LITERALS.get(word, word)
    try:
        json.loads(word)
    except ValueError:
        return _quoted(word)
    return word


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """The content of a JSON string, without its quotes."""
    return _quoted(text)[1:-1]
