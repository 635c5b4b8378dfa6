"""Reads a constrained call while it is being written, and translates its arguments to JSON.

The grammar guarantees the notation. So the name is certain as soon as the text that follows names
has arrived, and each piece of the arguments is certain as it arrives. The pieces of one call
together are one JSON object.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from anyclaude.mlx.decode.bare_keys import BareKeyReader, escaped, partial_length
from anyclaude.mlx.decode.coercion import declared_types, read_untyped
from anyclaude.mlx.decode.constraint.members import TAGGED_NAME, endings
from anyclaude.mlx.decode.constraint.parameters import (
    ITEM_SEPARATOR,
    KEY_SEPARATOR,
    Choice,
    Json,
    Parameter,
    Plain,
    dump,
    is_string,
)
from anyclaude.mlx.decode.notation import (
    BareKeyNotation,
    JsonNotation,
    Notation,
    Parts,
    Pattern,
    Perhaps,
    TaggedNotation,
)
from anyclaude.mlx.decode.pythonic import as_json


@dataclass(frozen=True)
class CallBegin:
    name: str


@dataclass(frozen=True)
class ArgumentsPiece:
    json: str


@dataclass(frozen=True)
class CallEnd:
    pass


CallEvent = CallBegin | ArgumentsPiece | CallEnd


class ReadingError(Exception):
    """The text does not fit the notation, so grammar and reader contradict each other."""


@dataclass(frozen=True)
class ReadableTool:
    """What the reader has to know of one tool."""

    name: str
    parameters: Sequence[Parameter]
    # For each argument with several readings: whether the schema allows a JSON text.
    checks: Mapping[str, Callable[[str], bool]]

    def parameter(self, key: str) -> Parameter:
        """The argument of this name, or the one that stands for all names like it."""
        named = {p.name: p for p in self.parameters if p.unlisted is None}
        if key in named:
            return named[key]
        return next(p for p in self.parameters if p.unlisted is not None and p.unlisted.fits(key))


class ConstrainedCallReader:
    """Reads the calls between a start marker and its end marker."""

    def __init__(self, notation: Notation, tools: Sequence[ReadableTool]) -> None:
        self._notation = notation
        self._tools = {tool.name: tool for tool in tools}
        self._name = _name_pattern(notation, self._tools)
        # In a notation with no text after the name, only the end marker shows that it is complete.
        self._bare_name = re.compile(f"(?P<name>{_names(self._tools)})")
        self._pending = ""
        # The arguments that are being read; None between calls.
        self._arguments: _Arguments | None = None

    @property
    def may_end(self) -> bool:
        """Whether no value is incomplete, so that an end marker really ends the calls."""
        return self._arguments is None or self._arguments.may_end

    def feed(self, text: str) -> Iterator[CallEvent]:
        """The events that are certain now. The iterator must be exhausted before the next call."""
        self._pending += text
        while self._pending:
            if self._arguments is None:
                tool = self._read_name()
                if tool is None:
                    return
                self._arguments = self._new_arguments(tool)
                yield CallBegin(tool.name)
            arguments = self._arguments
            piece, self._pending = arguments.read(self._pending)
            if piece:
                yield ArgumentsPiece(piece)
            if arguments.done:
                self._arguments = None
                yield CallEnd()
            elif not piece:
                return

    def finish(self) -> Iterator[CallEvent]:
        """The events that the end marker makes certain."""
        if self._arguments is None and (match := self._bare_name.fullmatch(self._pending)):
            yield CallBegin(match["name"])
            yield ArgumentsPiece("{}")
            yield CallEnd()
        elif self._arguments is not None:
            yield ArgumentsPiece(self._arguments.finish())
            self._arguments = None
            yield CallEnd()
        self._pending = ""

    def _read_name(self) -> ReadableTool | None:
        match = self._name.search(self._pending)
        if match is None:
            return None
        self._pending = self._pending[match.end() :]
        return self._tools[match["name"]]

    def _new_arguments(self, tool: ReadableTool) -> "_Arguments":
        if isinstance(self._notation, BareKeyNotation):
            return _BareKeyArguments(self._notation.quote)
        if isinstance(self._notation, JsonNotation):
            return _JsonArguments()
        return _TaggedArguments(self._notation, tool)


class _Arguments(Protocol):
    """Reads the arguments of one call."""

    done: bool

    @property
    def may_end(self) -> bool:
        """Whether the end marker of the call may end the arguments."""
        ...

    def read(self, text: str) -> tuple[str, str]:
        """Reads as much of `text` as is certain: a piece of JSON, and the rest of `text`."""
        ...

    def finish(self) -> str:
        """The last piece of JSON, when the end marker of the call was found."""
        ...


class _EndedByBracket:
    """Arguments that only their last bracket ends."""

    may_end = False

    def finish(self) -> str:
        raise ReadingError("an end marker inside the arguments")


class _JsonArguments(_EndedByBracket):
    """Follows one JSON object to its end."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.done = False

    def read(self, text: str) -> tuple[str, str]:
        for at, character in enumerate(text):
            self._follow(character)
            if self.done:
                return text[: at + 1], text[at + 1 :]
        return text, ""

    def _follow(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.done = not self._depth


class _BareKeyArguments(BareKeyReader, _EndedByBracket):
    """Translates one object with bare keys to JSON."""


class _TaggedArguments:
    """Translates arguments between tags to one JSON object."""

    def __init__(self, notation: TaggedNotation, tool: ReadableTool) -> None:
        self._end = notation.after_arguments
        self._closer = notation.after_value
        self._begin_next = notation.separator + notation.before_key
        self._separator = notation.separator
        self._plain_closers = [closer for closer in endings(notation) if closer] or [self._closer]
        self._marks_strings = notation.marks_strings
        self._as_json = _checked_json if notation.plain_strings else as_json
        self._tool = tool
        self._key = _key_pattern(notation, tool.parameters)
        self._current: Parameter | None = None
        # Whether the current argument is a string, whose text can be sent as it arrives.
        self._is_string = False
        self._first = True
        self.done = False

    @property
    def may_end(self) -> bool:
        # In a notation without text after the arguments, the call's end marker ends them.
        return self._current is None and not self._end

    def read(self, text: str) -> tuple[str, str]:
        if self._current is None:
            return self._between(text)
        if self._is_string:
            return self._plain(text)
        return self._whole(text, self._current)

    def finish(self) -> str:
        if not self.may_end:
            raise ReadingError("an end marker inside the arguments")
        return "{}" if self._first else "}"

    def _between(self, text: str) -> tuple[str, str]:
        if self._end and text.startswith(self._end):
            self.done = True
            return "{}" if self._first else "}", text[len(self._end) :]
        at = 0 if self._first else len(self._separator)
        match = self._key.match(text, at)
        if match is None:
            return "", text
        return self._begin(match["key"], match.groupdict().get("string")), text[match.end() :]

    def _begin(self, key: str, marked: str | None) -> str:
        parameter = self._tool.parameter(key)
        self._is_string = is_string(parameter) if marked is None else marked == "true"
        opening = "{" if self._first else ITEM_SEPARATOR
        self._current, self._first = parameter, False
        quote = '"' if self._is_string else ""
        return f"{opening}{dump(key)}{KEY_SEPARATOR}{quote}"

    def _plain(self, text: str) -> tuple[str, str]:
        """Reads text of a string, except an end that may be the beginning of a closing tag."""
        hits = [(text.find(closer) + len(closer), closer) for closer in self._plain_closers]
        found = [(end, closer) for end, closer in hits if end >= len(closer)]
        if not found:
            safe = len(text) - max(partial_length(text, closer) for closer in self._plain_closers)
            return escaped(text[:safe]), text[safe:]
        end, closer = min(found)
        self._current = None
        start = end - len(closer)
        return escaped(text[:start]) + '"', text[start + len(self._closer) :]

    def _whole(self, text: str, parameter: Parameter) -> tuple[str, str]:
        """Reads a value whose type is only known when it is complete."""
        for start in self._closings(text):
            written = self._value(parameter, text[:start])
            if written is not None:
                self._current = None
                return written, text[start + len(self._closer) :]
        return "", text

    def _closings(self, text: str) -> Iterator[int]:
        """The places where the value may end."""
        followers = (self._begin_next, self._end) if self._end else ("",)
        for follower in followers:
            closer = self._closer + follower
            at = text.find(closer)
            while at >= 0:
                yield at
                at = text.find(closer, at + 1)

    def _value(self, parameter: Parameter, text: str) -> str | None:
        if self._marks_strings:
            choices = [form.values for form in parameter.forms if isinstance(form, Choice)]
            found = next((values[text] for values in choices if text in values), None)
            return found or self._as_json(text)
        match parameter.forms:
            case (Json(),):
                return self._as_json(text)
            case (Choice(values),):
                return values.get(text)
        accepts = self._tool.checks[parameter.name]
        types = declared_types(parameter.schema)
        readings = [read_untyped(text, parameter.schema, types), text, *_json_values(text)]
        found = next((json for value in readings if accepts(json := dump(value))), None)
        if found is None and any(isinstance(form, Plain) for form in parameter.forms):
            return dump(text)
        return found


def _name_pattern(notation: Notation, tools: Mapping[str, ReadableTool]) -> re.Pattern[str]:
    name = f"{re.escape(notation.before_name)}(?P<name>{_names(tools)})"
    if isinstance(notation, BareKeyNotation):
        return re.compile(name + r"(?=\{)")
    if isinstance(notation, JsonNotation):
        return re.compile(name + _pattern(notation.before_arguments))
    return re.compile(
        name + (_pattern(notation.after_name) or f"(?={re.escape(notation.before_key)})")
    )


def _key_pattern(notation: TaggedNotation, parameters: Sequence[Parameter]) -> re.Pattern[str]:
    after = re.escape(notation.after_key).replace(re.escape("{type}"), r"\w+")
    after = after.replace(re.escape("{string}"), "(?P<string>true|false)")
    names = _names(p.name for p in parameters if p.unlisted is None)
    if any(p.unlisted for p in parameters):
        names = f"{names}|{TAGGED_NAME}"
    return re.compile(f"{re.escape(notation.before_key)}(?P<key>{names}){after}")


def _names(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)"


def _pattern(parts: Parts) -> str:
    return "".join(map(_part_pattern, parts))


def _part_pattern(part: str | Pattern | Perhaps) -> str:
    match part:
        case Pattern(regex):
            return regex
        case Perhaps(text):
            return f"(?:{re.escape(text)})?"
    return re.escape(part)


def _checked_json(text: str) -> str | None:
    return text if _json_values(text) else None


def _json_values(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return []
