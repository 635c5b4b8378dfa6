"""Reads a call while it is being written, when a grammar holds it.

What comes is known to be of the family's form, so the name is certain once it is followed by what
follows names, and each piece of the arguments is certain as it comes. The pieces together are one
JSON object.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyclaude.mlx.decode.bare_keys import NotationReader, begun
from anyclaude.mlx.decode.coercion import declared_types, read_untyped
from anyclaude.mlx.decode.constraint.parameters import (
    ITEM_SEPARATOR,
    KEY_SEPARATOR,
    Choice,
    Json,
    Parameter,
    Plain,
    dump,
)
from anyclaude.mlx.decode.constraint.rules import endings
from anyclaude.mlx.decode.notations import (
    JsonShape,
    NotationShape,
    Parts,
    Pattern,
    Shape,
    TaggedShape,
)

Accepts = Callable[[str], bool]


@dataclass(frozen=True)
class Begin:
    name: str


@dataclass(frozen=True)
class Piece:
    json: str


@dataclass(frozen=True)
class End:
    pass


Part = Begin | Piece | End


class ReadingError(Exception):
    """The text is not of the form that the grammar allows; one of the two is wrong."""


@dataclass(frozen=True)
class KnownTool:
    name: str
    # None when the arguments are written as one JSON object.
    parameters: Mapping[str, Parameter] | None
    # For arguments with several forms: whether a JSON text is what the schema allows.
    checks: Mapping[str, Accepts]


class CallReading:
    """The calls between a start marker and its end marker."""

    def __init__(self, shape: Shape, tools: Sequence[KnownTool]) -> None:
        self._shape = shape
        self._tools = {tool.name: tool for tool in tools}
        self._name = _name_pattern(shape, self._tools)
        # Where nothing stands behind a name, the end marker tells that it is one.
        self._bare_name = re.compile(f"(?P<name>{_names(self._tools)})")
        self._held = ""
        # The arguments being read; None between calls.
        self._arguments: _Object | _Notation | _Arguments | None = None

    @property
    def may_end(self) -> bool:
        """Whether all that was begun is complete, so that an end marker is one."""
        return self._arguments is None or self._arguments.may_end

    @property
    def between_calls(self) -> bool:
        """Whether no arguments are begun."""
        return self._arguments is None

    def feed(self, text: str) -> Iterator[Part]:
        """What is certain now; the iterator must be exhausted before the next call."""
        self._held += text
        while self._held:
            if self._arguments is None:
                tool = self._read_name()
                if tool is None:
                    return
                self._arguments = self._new_arguments(tool)
                yield Begin(tool.name)
            arguments = self._arguments
            piece, self._held = arguments.take(self._held)
            if piece:
                yield Piece(piece)
            if arguments.done:
                self._arguments = None
                yield End()
            elif not piece:
                return

    def finish(self) -> Iterator[Part]:
        """What the end marker makes certain."""
        if self._arguments is None and (match := self._bare_name.fullmatch(self._held)):
            yield Begin(match["name"])
            yield Piece("{}")
            yield End()
        elif self._arguments is not None:
            yield Piece(self._arguments.finish())
            self._arguments = None
            yield End()
        self._held = ""

    def _read_name(self) -> KnownTool | None:
        match = self._name.search(self._held)
        if match is None:
            return None
        self._held = self._held[match.end() :]
        return self._tools[match["name"]]

    def _new_arguments(self, tool: KnownTool) -> "_Object | _Notation | _Arguments":
        if isinstance(self._shape, NotationShape):
            return _Notation(self._shape.quote)
        if isinstance(self._shape, JsonShape) or tool.parameters is None:
            return _Object()
        return _Arguments(self._shape, tool)


class _Object:
    """Follows a JSON object to its end."""

    # Only its last bracket ends it.
    may_end = False

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.done = False

    def take(self, text: str) -> tuple[str, str]:
        """The part of `text` that belongs to the object, and the rest."""
        for at, character in enumerate(text):
            self._follow(character)
            if self.done:
                return text[: at + 1], text[at + 1 :]
        return text, ""

    def finish(self) -> str:
        raise ReadingError("an end marker inside the arguments")

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


class _Notation(NotationReader):
    """Follows an object in a notation of its own to its end."""

    # Only its last bracket ends it.
    may_end = False

    def finish(self) -> str:
        raise ReadingError("an end marker inside the arguments")


class _Arguments:
    """Follows arguments between marks, and writes them as one JSON object."""

    def __init__(self, shape: TaggedShape, tool: KnownTool) -> None:
        assert tool.parameters is not None
        self._end = shape.after_arguments
        self._closer = shape.after_value
        self._begin_next = shape.separator + shape.before_key
        self._separator = shape.separator
        self._plain_closers = [closer for closer in endings(shape) if closer] or [self._closer]
        self._parameters = tool.parameters
        self._checks = tool.checks
        self._key = _key_pattern(shape, tool.parameters)
        self._current: Parameter | None = None
        self._first = True
        self.done = False

    @property
    def may_end(self) -> bool:
        # Where the form has no end of its own, the call's end marker is it.
        return self._current is None and not self._end

    def take(self, text: str) -> tuple[str, str]:
        """What is certain of `text`, as a piece of JSON, and the rest."""
        if self._current is None:
            return self._between(text)
        if is_string(self._current):
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
        return self._begin(self._parameters[match["key"]]), text[match.end() :]

    def _begin(self, parameter: Parameter) -> str:
        opening = "{" if self._first else ITEM_SEPARATOR
        self._current, self._first = parameter, False
        quote = '"' if is_string(parameter) else ""
        return f"{opening}{dump(parameter.name)}{KEY_SEPARATOR}{quote}"

    def _plain(self, text: str) -> tuple[str, str]:
        """A string, given out as it comes but for what may become its end."""
        hits = [(text.find(closer) + len(closer), closer) for closer in self._plain_closers]
        found = [(end, closer) for end, closer in hits if end >= len(closer)]
        if not found:
            safe = len(text) - max(begun(text, closer) for closer in self._plain_closers)
            return _escaped(text[:safe]), text[safe:]
        end, closer = min(found)
        self._current = None
        start = end - len(closer)
        return _escaped(text[:start]) + '"', text[start + len(self._closer) :]

    def _whole(self, text: str, parameter: Parameter) -> tuple[str, str]:
        """A value whose type only its end tells."""
        for start in self._closings(text):
            written = self._read(parameter, text[:start])
            if written is not None:
                self._current = None
                return written, text[start + len(self._closer) :]
        return "", text

    def _closings(self, text: str) -> Iterator[int]:
        """Where the value may end."""
        followers = (self._begin_next, self._end) if self._end else ("",)
        for follower in followers:
            closer = self._closer + follower
            at = text.find(closer)
            while at >= 0:
                yield at
                at = text.find(closer, at + 1)

    def _read(self, parameter: Parameter, text: str) -> str | None:
        match parameter.forms:
            case (Json(),):
                return text if _is_json(text) else None
            case (Choice(values),):
                return values.get(text)
        accepts = self._checks[parameter.name]
        types = declared_types(parameter.schema)
        readings = [read_untyped(text, parameter.schema, types), text, *_json_values(text)]
        found = next((json for value in readings if accepts(json := dump(value))), None)
        if found is None and any(isinstance(form, Plain) for form in parameter.forms):
            return dump(text)
        return found


def is_string(parameter: Parameter) -> bool:
    """Whether an argument can be nothing but a string, so that its text may leave at once."""
    plain = all(isinstance(form, Plain) for form in parameter.forms)
    return plain and declared_types(parameter.schema) == {"string"}


def needs_check(parameter: Parameter) -> bool:
    """Whether several readings of an argument's text may have to be told apart."""
    return not is_string(parameter) and (
        len(parameter.forms) > 1 or isinstance(parameter.forms[0], Plain)
    )


def _name_pattern(shape: Shape, tools: Mapping[str, KnownTool]) -> re.Pattern[str]:
    name = f"{re.escape(shape.before_name)}(?P<name>{_names(tools)})"
    if isinstance(shape, NotationShape):
        return re.compile(name + r"(?=\{)")
    if isinstance(shape, JsonShape):
        return re.compile(name + _pattern(shape.before_arguments))
    return re.compile(name + (_pattern(shape.after_name) or f"(?={re.escape(shape.before_key)})"))


def _key_pattern(shape: TaggedShape, parameters: Mapping[str, Parameter]) -> re.Pattern[str]:
    after = re.escape(shape.after_key).replace(re.escape("{type}"), r"\w+")
    return re.compile(f"{re.escape(shape.before_key)}(?P<key>{_names(parameters)}){after}")


def _names(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)"


def _pattern(parts: Parts) -> str:
    return "".join(p.regex if isinstance(p, Pattern) else re.escape(p) for p in parts)


def _escaped(text: str) -> str:
    return dump(text)[1:-1]


def _is_json(text: str) -> bool:
    return bool(_json_values(text))


def _json_values(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return []
