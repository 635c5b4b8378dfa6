"""The input of one tool call, assembled from the pieces that a server sends.

Servers begin with an empty object before the real one, send `null`, nothing or blanks for no
input, or a string that holds the object. All of these become the text of one JSON object. Nothing
is given out that may turn out to be such a placeholder.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from anyclaude.relay.halves import LOST, Halves

# An input that stands for none, whole or begun; the real one may follow.
_HELD: Final = re.compile(r"\s*(\{\s*\}?|\[\s*\]?|n(u(ll?)?)?|None|undefined)?\s*")
_PLACEHOLDERS: Final = re.compile(r"(\s*(\{\s*\}|\[\s*\]|null)\s*)+(?=[{\"\[])")
_NONE: Final[tuple[Any, ...]] = (None, "", "null", "{}", [])
_NONE_WORDS: Final = ("", "None", "undefined")
_DECODER: Final = json.JSONDecoder()
_ESCAPE: Final = re.compile(r"\\u[0-9a-fA-F]{4}|\\[^u]|[^\\]+|\\u?[0-9a-fA-F]{0,3}", re.DOTALL)
_ESCAPED_HALF: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_INVALID: Final = object()
# What some servers add behind a whole object: brackets, and markers of the model's format.
_SURPLUS: Final = re.compile(r"(?:[}\]\s]|</?\|?[\w/|:-]+\|?>|```)*")


class _Brackets:
    """Whether all brackets and strings of a JSON text are closed.

    Line ends and tabs within a string, which JSON does not allow, become their escapes.
    """

    _TELLING: Final = re.compile(r'[\[\]{}"\\\x00-\x1f]')

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped_at = -1
        self._length = 0

    @property
    def are_closed(self) -> bool:
        return self._depth <= 0 and not self._in_string

    def feed(self, piece: str) -> str:
        """The piece with its escapes."""
        fed = self._TELLING.sub(lambda found: self._see(found[0], found.start()), piece)
        self._length += len(piece)
        return fed

    def _see(self, character: str, start: int) -> str:
        position = self._length + start
        if character < " ":
            is_raw = self._in_string and self._depth > 0 and self._escaped_at != position
            return json.dumps(character)[1:-1] if is_raw else character
        if self._escaped_at == position:
            return character
        if self._in_string and character == "\\":
            self._escaped_at = position + 1
        elif character == '"':
            self._in_string = not self._in_string
        elif not self._in_string:
            self._depth += 1 if character in "[{" else -1
        return character


class Arguments:
    """Pieces in, the text of one JSON object out."""

    def __init__(self) -> None:
        # The text so far, without a placeholder before it.
        self.text = ""
        # `text` is one whole JSON object.
        self.is_complete = False
        self._sent = 0
        self._brackets = _Brackets()
        self._halves = Halves()

    @property
    def is_empty(self) -> bool:
        """Nothing but what stands for no input has come."""
        return bool(_HELD.fullmatch(self.text))

    @property
    def value(self) -> Any:
        """The parsed input; None while it is incomplete."""
        if self.is_empty:
            return {}
        return parsed(self.text) if self.is_complete else None

    def feed(self, piece: str) -> None:
        """Adds a piece. After the end of a whole object only blanks may follow; see `extends`."""
        piece = self._halves.feed(piece)
        if self.is_complete and self.repeats(piece):
            return
        if not self._sent and (found := _PLACEHOLDERS.match(self.text + piece)):
            self.text, piece = "", (self.text + piece)[found.end() :]
            self._brackets, self.is_complete = _Brackets(), False
        self.text += self._brackets.feed(piece)
        self.is_complete = self.is_complete and not piece.strip()
        # Parsing after every piece would be quadratic.
        if self._brackets.are_closed:
            self._look_for_end()

    def extends(self, piece: str) -> bool:
        """Whether `piece` can continue the input."""
        return self.is_empty or not self.is_complete or not piece.strip()

    def repeats(self, piece: str) -> bool:
        """Whether `piece` is the whole input once more, or adds nothing to it."""
        if _SURPLUS.fullmatch(piece):
            return True
        value = parsed(piece)
        return value == self.value or value in _NONE or value == {}

    def _look_for_end(self) -> None:
        value = parsed(self.text)
        if value is _INVALID:
            self.text = _without_surplus(self.text)
            value = parsed(self.text)
        while isinstance(value, str) and parsed(value) is not _INVALID:
            self.text, value = value, parsed(value)
        if isinstance(value, list) and len(value) == 1:
            # An object in a list.
            self.text, value = json.dumps(value[0], ensure_ascii=False), value[0]
        self.is_complete = isinstance(value, dict)

    def take(self) -> str:
        """What may be given out now."""
        if self.is_empty or not self.text.lstrip().startswith("{"):
            return ""
        return self._given(is_last=False)

    def settle(self) -> str:
        """The rest, since no more pieces follow.

        Raises:
            ValueError: the pieces are not one JSON object.
        """
        if lost := self._halves.finish():
            self.text += lost
            self.is_complete = False
        is_none = self.text.strip() in _NONE_WORDS or parsed(self.text) in _NONE
        if not self._sent and is_none:
            self.text, self.is_complete = "{}", True
        if not self.is_complete:
            raise ValueError("the arguments are not one JSON object")
        return self._given(is_last=True)

    def _given(self, *, is_last: bool) -> str:
        text, length = _without_halves(self.text[self._sent :], is_last=is_last)
        self._sent += length
        return text


def _without_halves(text: str, *, is_last: bool) -> tuple[str, int]:
    """JSON text without escaped halves of surrogate pairs, and how much of `text` it stands for.

    An escape at the end, whose rest may follow, is left for the next call.
    """
    if "\\" not in text:
        return text, len(text)
    given: list[str] = []
    high, done = "", 0
    for found in _ESCAPE.finditer(text):
        token = found[0]
        if token[0] == "\\" and len(token) < (6 if token[1:2] == "u" else 2):
            break
        half = token[3] if _ESCAPED_HALF.fullmatch(token) else ""
        is_low = bool(half) and half in "cdefCDEF"
        if high and not is_low:
            given.append(LOST)
            high, done = "", found.start()
        if half and not is_low:
            high = token
            continue
        given.append(token if high or not is_low else LOST)
        if high:
            given.insert(-1, high)
        high, done = "", found.end()
    if high and is_last:
        given.append(LOST)
        done = len(text)
    return "".join(given), done


def parsed(text: str) -> Any:
    """The JSON value of `text`; a value of its own that equals nothing if it is not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _INVALID


def _without_surplus(text: str) -> str:
    """The text of an object without the closing brackets that are too many, if that is all."""
    try:
        _, end = _DECODER.raw_decode(text, len(text) - len(text.lstrip()))
    except (ValueError, RecursionError):
        return text
    return text[:end] if _SURPLUS.fullmatch(text, end) else text


def whole_value(text: str) -> Any:
    """The input that a piece is, alone; None if it is a part of one."""
    arguments = Arguments()
    arguments.feed(text)
    try:
        arguments.settle()
    except ValueError:
        return None
    return arguments.value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def text_of(arguments: object) -> str:
    """Arguments as text, whether the server sends text or an object."""
    if isinstance(arguments, str):
        return arguments
    is_value = isinstance(arguments, (Mapping, list))
    return json.dumps(arguments, ensure_ascii=False) if is_value else ""
