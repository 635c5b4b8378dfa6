"""From a call's text to the calls it makes.

Order: tagged dialects and Gemma's notation, whose values only our readers keep whole; JSON; the
parser that mlx-lm chose for the model; then tolerant readings. Nothing is guessed: what cannot be
read, and what calls a tool that was not offered, comes back as `Unreadable` with a reason, and a
call is never given with fewer arguments than were written.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyclaude.messages.requests import Tool
from anyclaude.mlx.adapter import TokenizerWrapper, parser_family
from anyclaude.mlx.decode import bare_keys
from anyclaude.mlx.decode.coercion import coerce_arguments
from anyclaude.mlx.decode.lenient import ends_inside_string, is_json, read_values
from anyclaude.mlx.decode.tagged import ends_inside_value, is_tagged, read_tagged

# Parsers of mlx-lm that pass over what they do not understand; readers of ours stand for them.
_REPLACED = frozenset({"qwen3_coder", "minimax_m2", "longcat", *bare_keys.QUOTES})
_NAME_KEYS = ("name", "function", "tool", "tool_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "input", "args")
_PLAIN_NAME = re.compile(r"[\w.:/-]{1,128}")
_MARK = r"<\|\w+\|>|\[\w+\]"
_NAME_BEFORE_JSON = re.compile(
    rf"(?:{_MARK}|[^\w<])*(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?(?:{_MARK}|[\s:=(])*"
)
# What may follow the name in a call without arguments.
_EMPTY_CALL = re.compile(rf'{_MARK}|</[^<>]*>|:\d+|"(?:{"|".join(_ARGUMENT_KEYS)})"')

MALFORMED = "could not be read: it is malformed"
LOST = "could not be read: its arguments are missing or malformed"
UNKNOWN = "was not made: no tool of that name was offered"


@dataclass(frozen=True)
class Call:
    name: str
    # Compact JSON of one object.
    input_json: str


@dataclass(frozen=True)
class Unreadable:
    # None when no name could be made out; else as the model wrote it.
    name: str | None
    # Completes the sentence "the call to NAME ...".
    reason: str


class _ReadError(ValueError):
    """The text is no call."""


@dataclass(frozen=True)
class _Written:
    """A call as it was written, nothing checked."""

    name: Any
    # None when there were none.
    arguments: Any
    untyped: bool = False


class CallReader:
    def __init__(self, tokenizer: TokenizerWrapper, tools: Sequence[Tool]) -> None:
        self._parse: Callable[[str, Any], Any] = tokenizer.tool_parser
        self._family = parser_family(tokenizer)
        # The mark around strings, in a family that has one.
        self._quote = bare_keys.QUOTES.get(self._family)
        self._start: str = tokenizer.tool_call_start
        self._schemas = {tool.name: tool.input_schema or {} for tool in tools}
        # The parser sees every argument as a string, so that types are decided in one place: here.
        self._tools = [_as_strings(tool) for tool in tools]

    def is_open(self, text: str) -> bool:
        """Whether `text` breaks off inside a value: the end marker behind it is part of that."""
        if self._quote is not None and bare_keys.ends_inside_string(text, self._quote):
            return True
        return ends_inside_value(text) if is_tagged(text) else ends_inside_string(text)

    def read(self, text: str) -> list[Call | Unreadable]:
        """Every call in `text`, readable or not; never empty."""
        with warnings.catch_warnings():
            # Reading what a model wrote as Python warns about its escapes.
            warnings.simplefilter("ignore")
            return self._read(text)

    def _read(self, text: str) -> list[Call | Unreadable]:
        best: list[Call | Unreadable] = []
        for read in self._readings(text):
            results = self._try(read, text)
            if results and all(isinstance(result, Call) for result in results):
                return results
            best = max(best, results, key=self._worth)
        # Several calls under one end marker.
        parts = [part for part in text.split(self._start) if part.strip()]
        if len(parts) > 1:
            return [call for part in parts for call in self._read(part)]
        if best and any(result.name for result in best):
            return best
        return [Unreadable(self._name_in(text), MALFORMED)]

    def _try(self, read: Callable[[str], list[_Written]], text: str) -> list[Call | Unreadable]:
        try:
            return [self._check(call, text) for call in read(text)]
        # What a model writes makes foreign parsers fail in ways of all kinds.
        except Exception:  # noqa: BLE001
            return []

    def _worth(self, results: Sequence[Call | Unreadable]) -> tuple[int, int, int]:
        """Which of two readings that fail says more."""
        calls = sum(isinstance(result, Call) for result in results)
        offered = sum(result.name in self._schemas for result in results)
        return calls, offered, sum(result.name is not None for result in results)

    def _readings(self, text: str) -> Iterator[Callable[[str], list[_Written]]]:
        if is_tagged(text):
            yield _from_tags
            return
        if is_json(text):
            # Whatever the family: GLM's parser would spell such values as Python does.
            yield _from_json
            return
        if self._quote is not None:
            yield self._from_notation
        if self._family not in _REPLACED and not (self._family == "glm47" and "<arg_" in text):
            yield self._by_parser
        yield _from_json
        yield self._from_name_and_json

    def _by_parser(self, text: str) -> list[_Written]:
        parsed = self._parse(text, self._tools)
        return [_from_object(call) for call in (parsed if isinstance(parsed, list) else [parsed])]

    def _from_notation(self, text: str) -> list[_Written]:
        assert self._quote is not None
        return [_Written(*call) for call in bare_keys.read_notation(text, self._quote)]

    def _from_name_and_json(self, text: str) -> list[_Written]:
        """`NAME{...}` with nothing but a template's own marks before and between."""
        head, brace, tail = text.partition("{")
        match = _NAME_BEFORE_JSON.fullmatch(head)
        if match is None or not brace:
            raise _ReadError
        return [_Written(match["name"], _only(read_values(brace + tail)))]

    def _name_in(self, text: str) -> str | None:
        """The offered name that comes first in `text`."""
        found = [
            (match.start(), -len(name), name)
            for name in self._schemas
            if (match := re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))
        ]
        return min(found)[2] if found else None

    def _check(self, call: _Written, text: str) -> Call | Unreadable:
        if not isinstance(call.name, str):
            raise _ReadError
        name = call.name.strip()
        if name not in self._schemas:
            return Unreadable(name if _PLAIN_NAME.fullmatch(name) else None, UNKNOWN)
        schema = self._schemas[name]
        arguments = call.arguments
        if arguments is None and not schema.get("required"):
            arguments = {}
        if not isinstance(arguments, Mapping) or _is_loss(arguments, schema, name, text):
            return Unreadable(name, LOST)
        try:
            coerced = coerce_arguments(arguments, schema, untyped=call.untyped)
            return Call(name, _compact(coerced))
        except (ValueError, TypeError, RecursionError):
            return Unreadable(name, LOST)


def _is_loss(arguments: Mapping[str, Any], schema: Mapping[str, Any], name: str, text: str) -> bool:
    """Whether a parser dropped what was written, or made something up for it."""
    # What mlx-lm's GLM parser calls the text that it could not divide.
    if set(arguments) == {"raw"} and "raw" not in _properties(schema):
        return True
    if arguments or not schema.get("required"):
        return False
    return bool(re.search(r"\w", _EMPTY_CALL.sub("", text.partition(name)[2])))


def _from_tags(text: str) -> list[_Written]:
    return [_Written(call.name, call.arguments, call.untyped) for call in read_tagged(text)]


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


def _as_strings(tool: Tool) -> dict[str, Any]:
    """The tool in the shape parsers want, every argument declared a string."""
    properties = {name: {"type": "string"} for name in _properties(tool.input_schema or {})}
    parameters = {"type": "object", "properties": properties}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _compact(arguments: Mapping[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Halves of surrogate pairs cannot travel as UTF-8: pairs are joined, a lone half is replaced.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
