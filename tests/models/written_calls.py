"""Calls written in the notation of a family, and whether a grammar allows and reads them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.constraint import AnswerGrammar, ArgumentsPiece, CallBegin
from anyclaude.mlx.decode.notation import (
    BareKeyNotation,
    JsonNotation,
    Notation,
    Pattern,
    TaggedNotation,
)
from anyclaude.mlx.decode.notations import notation_of
from tests.models.constrained_answers import tokens_in
from tests.models.families import encode


def written_call(wrapper: TokenizerWrapper, name: str, arguments: Mapping[str, Any]) -> str:
    """A call between its markers."""
    return written_calls(wrapper, [(name, arguments)])


def written_calls(wrapper: TokenizerWrapper, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Parallel calls: between one pair of markers if the notation has sections of several calls."""
    notation = notation_of(wrapper)
    section = notation.section if notation else None
    bodies = [_body(notation, name, arguments) for name, arguments in calls]
    if section is not None:
        bodies = [section.before_first + section.between.join(bodies) + section.after_last]
    start, end = wrapper.tool_call_start, wrapper.tool_call_end or ""
    return "\n".join(f"{start}{body}{end}" for body in bodies)


def _body(notation: Notation | None, name: str, arguments: Mapping[str, Any]) -> str:
    match notation:
        case JsonNotation():
            between = _parts(notation.before_arguments)
            body = f"{_json_name(name)}{between}{_json(arguments)}"
            body += _parts(notation.after_arguments)
            return f"{_parts(notation.before_all)}{notation.before_name}{body}"
        case BareKeyNotation(quote=quote):
            body = f"{name}{_bare(arguments, quote)}"
        case TaggedNotation():
            body = name + _parts(notation.after_name) + _tagged(notation, arguments)
        case _:
            raise ValueError("a family without a notation")
    return notation.before_name + body


@dataclass(frozen=True)
class Reading:
    """How far a grammar allowed a text, and what was read.

    Attributes:
        refused: the text up to the token that the grammar forbids; None if it allows all.
        calls: name and input of each call.
    """

    refused: str | None
    calls: list[tuple[str, Any]]


def reading(
    made: AnswerGrammar, wrapper: TokenizerWrapper, text: str, *, read: bool = True
) -> Reading:
    """Writes `text` token by token, and reads the calls between its markers unless told not to."""
    tokens = encode(wrapper, text)
    for at, token in enumerate(tokens):
        if made.constraint.is_active and token not in tokens_in(made.constraint.mask()):
            return Reading(wrapper.decode(tokens[: at + 1]), [])
        made.constraint.observe(token)
    if not read:
        return Reading(None, [])
    assert made.new_reader is not None
    reader = made.new_reader()
    body = text.removeprefix(wrapper.tool_call_start).removesuffix(wrapper.tool_call_end or "")
    names: list[str] = []
    pieces: list[list[str]] = []
    for event in [*reader.feed(body), *reader.finish()]:
        match event:
            case CallBegin(name):
                names.append(name)
                pieces.append([])
            case ArgumentsPiece(piece):
                pieces[-1].append(piece)
    inputs = [json.loads("".join(parts)) for parts in pieces]
    return Reading(None, list(zip(names, inputs, strict=True)))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_name(name: str) -> str:
    return _json(name)[1:-1]


def _tagged(notation: TaggedNotation, arguments: Mapping[str, Any]) -> str:
    written = notation.separator.join(
        notation.before_key
        + key
        + notation.after_key.replace("{type}", "string").replace(
            "{string}", "true" if isinstance(value, str) else "false"
        )
        + (value if notation.plain_strings and isinstance(value, str) else _json(value))
        + notation.after_value
        for key, value in arguments.items()
    )
    return written + notation.after_arguments


def _bare(value: Any, quote: str) -> str:
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case list():
            return "[" + ",".join(_bare(item, quote) for item in value) + "]"
        case dict():
            return "{" + ",".join(f"{k}:{_bare(v, quote)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def _parts(parts: Any) -> str:
    texts = (_example(part) if isinstance(part, Pattern) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def _example(part: Pattern) -> str:
    """A text that fits the pattern of a call's number or id."""
    return next(text for text in ("0", "abcdefgh1", "") if re.fullmatch(part.regex, text))
