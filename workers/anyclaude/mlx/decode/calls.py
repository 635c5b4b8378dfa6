"""Reads the tool calls in a text that no grammar constrained, and repairs them where that is safe.

Several readers are tried in order: tags and bare keys, whose values only our own readers keep
whole; JSON; the parser that mlx-lm chose for the model; at last, more tolerant ways to read JSON.
Nothing is guessed. A call that cannot be read becomes an `Unreadable` with a reason, one of a tool
that was not offered an `UnknownTool`, and a call never has fewer arguments than were written.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyclaude.messages.requests import Tool
from anyclaude.messages.tool_names import known_name
from anyclaude.mlx.adapter import TokenizerWrapper, parser_family
from anyclaude.mlx.decode import bare_keys, pythonic
from anyclaude.mlx.decode.coercion import coerce_arguments, properties_of
from anyclaude.mlx.decode.lenient import ends_inside_string, is_json, read_values, values_end
from anyclaude.mlx.decode.notation import BareKeyNotation
from anyclaude.mlx.decode.notations import dialect_of, family_of
from anyclaude.mlx.decode.repairs import Repair, RepairCounts

_NAME_KEYS = ("name", "function", "tool", "tool_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "input", "args")
# The names that the API allows for tools.
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
# A marker, with the id of the call where one follows it.
_MARK = r"\[CALL_ID\]\w+|<\|\w+\|>|\[\w+\]"
_NAME_BEFORE_JSON = re.compile(
    rf"(?:{_MARK}|[^\w<])*(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?(?:{_MARK}|[\s:=()\"'`])*"
)
# Text that may follow the name in a call without arguments.
_EMPTY_CALL = re.compile(rf'{_MARK}|</[^<>]*>|:\d+|"(?:{"|".join(_ARGUMENT_KEYS)})"')

MALFORMED = "it is malformed"
LOST = "its arguments are missing or malformed"


@dataclass(frozen=True)
class Call:
    name: str
    # Compact JSON of one object.
    input_json: str


@dataclass(frozen=True)
class UnknownTool:
    """A readable call of a tool that was not offered."""

    # The API allows such a name.
    name: str
    input_json: str


@dataclass(frozen=True)
class Unreadable:
    # As the model wrote it; None if no name was found.
    name: str | None
    # Ends the sentence "The call could not be read: ...".
    reason: str


Result = Call | UnknownTool | Unreadable


class _ReadError(ValueError):
    """The text is not a call."""


@dataclass(frozen=True)
class _Written:
    """A call as the model wrote it, before any check."""

    name: Any
    # None if there are none.
    arguments: Any
    untyped: bool = False


class CallReader:
    """Reads the calls of one answer, and counts what it repairs."""

    def __init__(
        self, tokenizer: TokenizerWrapper, tools: Sequence[Tool], repairs: RepairCounts
    ) -> None:
        self._repairs = repairs
        self._parse: Callable[[str, Any], Any] = tokenizer.tool_parser
        self._family = family = family_of(tokenizer)
        self._parser_fails_on = family.parser_fails_on
        # The quote mark of a family that writes bare keys.
        self._quote = (
            family.notation.quote if isinstance(family.notation, BareKeyNotation) else None
        )
        self._is_always_pythonic = parser_family(tokenizer) == "pythonic"
        self._start: str = tokenizer.tool_call_start
        self._schemas = {tool.name: tool.input_schema or {} for tool in tools}
        # The parser gets a schema in which every argument is a string, so that only
        # `coerce_arguments` decides about types.
        self._tools = [_with_string_arguments(tool) for tool in tools]

    def is_open(self, text: str) -> bool:
        """Whether `text` ends inside a value, so that an end marker would be part of it."""
        if self._quote is not None and bare_keys.ends_inside_quotes(text, self._quote):
            return True
        if self._is_pythonic(text):
            return pythonic.ends_inside_string(text)
        dialect = dialect_of(text, self._family)
        return dialect.ends_inside_value(text) if dialect else ends_inside_string(text)

    def _is_pythonic(self, text: str) -> bool:
        return self._is_always_pythonic or (
            self._family.unmarked_first and pythonic.begins_list(text)
        )

    def divided(self, text: str) -> tuple[str, str]:
        """Divides `text` into the calls at its beginning and the words behind the last of them."""
        if self._is_pythonic(text):
            return pythonic.divided(text)
        if self._quote is not None:
            return bare_keys.divided(text, self._quote)
        dialect = dialect_of(text, self._family)
        if dialect is not None:
            return dialect.divided(text)
        end = values_end(text)
        return (text[:end], text[end:]) if end else (text, "")

    def read(self, text: str) -> list[Result]:
        """Every call in `text`, readable or not. There is always at least one."""
        with warnings.catch_warnings():
            # Python warns about wrong escapes when it evaluates what a model wrote.
            warnings.simplefilter("ignore")
            return self._read(text)

    def _read(self, text: str) -> list[Result]:
        best: list[Result] = []
        for read in self._readings(text):
            results = self._try(read, text)
            if results and all(isinstance(result, Call) for result in results):
                self._count(read, text)
                return results
            best = max(best, results, key=self._worth)
        # Several calls under one end marker.
        parts = [part for part in text.split(self._start) if part.strip()]
        if len(parts) > 1:
            return [call for part in parts for call in self._read(part)]
        if best and any(result.name for result in best):
            return best
        return [Unreadable(self._name_in(text), MALFORMED)]

    def _try(self, read: Callable[[str], list[_Written]], text: str) -> list[Result]:
        try:
            return [self._check(call, text) for call in read(text)]
        except Exception:  # noqa: BLE001 - mlx-lm's parsers raise any error on malformed calls
            return []

    def _count(self, read: Callable[[str], list[_Written]], text: str) -> None:
        dialect = dialect_of(text, self._family)
        if dialect is not None and dialect is not self._family.dialect:
            self._repairs[Repair.OTHER_NOTATION] += 1
        if read == _from_json and not is_json(text):
            self._repairs[Repair.MALFORMED_JSON] += 1

    def _worth(self, results: Sequence[Result]) -> tuple[int, int, int]:
        """A sort key that says how much a reading found; used if every reading fails."""
        calls = sum(isinstance(result, Call) for result in results)
        offered = sum(result.name in self._schemas for result in results)
        return calls, offered, sum(result.name is not None for result in results)

    def _readings(self, text: str) -> Iterator[Callable[[str], list[_Written]]]:
        if dialect := dialect_of(text, self._family):
            yield lambda text: [
                _Written(call.name, call.arguments, call.untyped) for call in dialect.read(text)
            ]
            return
        if is_json(text):
            # In every family, since mlx-lm's parser for GLM would write the values as Python does.
            yield _from_json
            return
        if self._quote is not None:
            yield self._from_bare_keys
        if self._is_pythonic(text):
            yield lambda text: [_Written(*call) for call in pythonic.read_pythonic(text)]
        if self._parser_fails_on is None or self._parser_fails_on not in text:
            yield self._by_parser
        yield _from_json
        yield self._from_name_and_json

    def _by_parser(self, text: str) -> list[_Written]:
        parsed = self._parse(text, self._tools)
        return [_from_object(call) for call in (parsed if isinstance(parsed, list) else [parsed])]

    def _from_bare_keys(self, text: str) -> list[_Written]:
        assert self._quote is not None
        return [_Written(*call) for call in bare_keys.read_bare_keys(text, self._quote)]

    def _from_name_and_json(self, text: str) -> list[_Written]:
        """Reads `NAME{...}` with nothing but a template's markers before and between."""
        head, brace, tail = text.partition("{")
        match = _NAME_BEFORE_JSON.fullmatch(head)
        if match is None or not brace:
            raise _ReadError
        return [_Written(match["name"], _only(read_values(brace + tail)))]

    def _name_in(self, text: str) -> str | None:
        """The name of an offered tool that comes first in `text`."""
        found = [
            (match.start(), -len(name), name)
            for name in self._schemas
            if (match := re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))
        ]
        return min(found)[2] if found else None

    def _check(self, call: _Written, text: str) -> Result:
        if not isinstance(call.name, str):
            raise _ReadError
        written = call.name.strip()
        name = known_name(written, self._schemas)
        if name not in self._schemas:
            return self._unknown(name, call.arguments, text)
        schema = self._schemas[name]
        arguments = call.arguments
        if arguments is None and not schema.get("required"):
            arguments = {}
        if not isinstance(arguments, Mapping) or _is_loss(arguments, schema, written, text):
            return Unreadable(name, LOST)
        try:
            coerced = coerce_arguments(arguments, schema, untyped=call.untyped)
            made = Call(name, _compact(coerced))
        except (ValueError, TypeError, RecursionError):
            return Unreadable(name, LOST)
        self._repairs[Repair.WRONG_TYPE] += not call.untyped and coerced != arguments
        return made

    def _unknown(self, name: str, arguments: Any, text: str) -> Result:
        if not isinstance(arguments, Mapping):
            raise _ReadError
        # mlx-lm's parser for GLM takes any text for a name, and calls what it cannot divide "raw".
        is_call = is_json(text) or set(arguments) - {"raw"}
        if not is_call or not _TOOL_NAME.fullmatch(name):
            return Unreadable(None, "it names no tool that was offered")
        return UnknownTool(name, _compact(arguments))


def _is_loss(arguments: Mapping[str, Any], schema: Mapping[str, Any], name: str, text: str) -> bool:
    """Whether a parser dropped arguments that were written, or invented one."""
    # mlx-lm's parser for GLM gives this name to text that it could not divide.
    if set(arguments) == {"raw"} and "raw" not in properties_of(schema):
        return True
    if arguments or not schema.get("required"):
        return False
    return bool(re.search(r"\w", _EMPTY_CALL.sub("", text.partition(name)[2])))


def _from_json(text: str) -> list[_Written]:
    values = read_values(text)
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    return [_from_object(value) for value in values]


def _from_object(value: Any) -> _Written:
    if not isinstance(value, Mapping):
        raise _ReadError
    inner = next((value[key] for key in _NAME_KEYS if key in value), None)
    if isinstance(inner, Mapping):
        return _from_object(inner)
    arguments: Any = next((value[key] for key in _ARGUMENT_KEYS if key in value), None)
    if isinstance(arguments, str):
        arguments = _only(read_values(arguments))
    return _Written(inner, arguments)


def _only(values: list[Any]) -> Any:
    if len(values) != 1:
        raise _ReadError
    return values[0]


def _with_string_arguments(tool: Tool) -> dict[str, Any]:
    """The tool in the form that mlx-lm's parsers expect, with every argument a string."""
    properties = {name: {"type": "string"} for name in properties_of(tool.input_schema or {})}
    parameters = {"type": "object", "properties": properties}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _compact(arguments: Mapping[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Surrogates cannot be encoded as UTF-8: pairs are joined, and a lone one is replaced.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
