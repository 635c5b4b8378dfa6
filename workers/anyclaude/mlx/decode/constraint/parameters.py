"""The arguments of a call in a tagged notation, derived from the tool's JSON Schema.

A string is written as it is, and every other value as JSON. The schema of an argument decides both
how the grammar allows it to be written and how it is read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.mlx.decode.coercion import declared_types
from anyclaude.mlx.decode.constraint.schemas import CONDITIONS, Schema

_DEFINITIONS: Final = ("$defs", "definitions")
# The values of each type as JSON, by the words of JSON and of Python for them.
_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "boolean": {"true": "true", "false": "false", "True": "true", "False": "false"},
    "null": {"null": "null", "None": "null"},
}
# Keywords that exclude some of these values.
_OTHERS: Final = ("enum", "const", *CONDITIONS)
# The keywords of an object that is no more than its listed properties.
PLAIN_OBJECT: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", *_DEFINITIONS}
)
ITEM_SEPARATOR: Final = ", "
KEY_SEPARATOR: Final = ": "


@dataclass(frozen=True)
class Plain:
    """A string without quotes.

    Attributes:
        constraints: regular expressions that must all match.
    """

    constraints: tuple[str, ...] = ()
    may_be_empty: bool = True


@dataclass(frozen=True)
class Json:
    """A value written as JSON."""

    schema: Schema


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    # The JSON of each value by the text that is written for it.
    values: Mapping[str, str]


Form = Plain | Json | Choice


@dataclass(frozen=True)
class Parameter:
    name: str
    required: bool
    # How the argument may be written; if there are several forms, reading tries all of them.
    forms: tuple[Form, ...]
    # The whole schema, by which the right reading of a text is chosen.
    schema: Schema
    type_name: str


def dump(value: Any) -> str:
    """JSON with the whitespace that chat templates write."""
    separators = (ITEM_SEPARATOR, KEY_SEPARATOR)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=separators)


def parameters(
    schema: Schema, *, plain_strings: bool, python_words: bool = False
) -> list[Parameter] | None:
    """The arguments of an object schema; None if they can only be described together.

    Args:
        plain_strings: whether strings are written without quotes and escapes.
        python_words: whether `True` may be written for `true`, as many templates do.
    """
    if any(key in schema for key in CONDITIONS) or schema.get("additionalProperties"):
        return None
    if not schema.get("properties") and "additionalProperties" not in schema:
        # Any object is allowed.
        return None
    required = set(schema.get("required", ()))
    definitions = {key: schema[key] for key in _DEFINITIONS if key in schema}
    return [
        _parameter(
            name,
            inner,
            definitions,
            name in required,
            plain_strings=plain_strings,
            python_words=python_words,
        )
        for name, inner in schema.get("properties", {}).items()
    ]


def is_string(parameter: Parameter) -> bool:
    """Whether an argument is always a string, so that its text can be sent as it arrives."""
    plain = all(isinstance(form, Plain) for form in parameter.forms)
    return plain and declared_types(parameter.schema) == {"string"}


def is_ambiguous(parameter: Parameter) -> bool:
    """Whether one text of the argument may have several readings."""
    return not is_string(parameter) and (
        len(parameter.forms) > 1 or isinstance(parameter.forms[0], Plain)
    )


def _parameter(
    name: str,
    schema: Any,
    definitions: Schema,
    required: bool,
    *,
    plain_strings: bool,
    python_words: bool,
) -> Parameter:
    resolved = _resolved(schema, definitions)
    whole = {**resolved, **definitions}
    types = declared_types(resolved)
    forms = _forms(resolved, definitions) if plain_strings else (Json(whole),)
    is_word = types and types <= _WORDS.keys() and not any(key in resolved for key in _OTHERS)
    if python_words and is_word:
        spellings = [pair for name in sorted(types) for pair in _WORDS[name].items()]
        forms = (Choice(dict(spellings)),)
    type_name = next(iter(types)) if len(types) == 1 else "string"
    return Parameter(name, required, tuple(forms), whole, type_name)


def _resolved(schema: Any, definitions: Schema) -> dict[str, Any]:
    """The schema, or the definition that it refers to directly."""
    if not isinstance(schema, Mapping):
        return {}
    parts = str(schema.get("$ref", "")).split("/")
    if len(parts) == 3 and parts[0] == "#":
        target = definitions.get(parts[1], {}).get(parts[2])
        if isinstance(target, Mapping):
            return dict(target)
    return dict(schema)


def _forms(schema: Schema, definitions: Schema) -> Sequence[Form]:
    if "enum" in schema or "const" in schema:
        return [_choice(schema.get("enum", [schema.get("const")]))]
    types = declared_types(schema)
    if not types:
        # Without any keyword every text is a string. If schemas are combined, only JSON is certain.
        anything = not any(key in schema for key in CONDITIONS)
        return [Plain()] if anything else [Json({**schema, **definitions})]
    if "string" not in types:
        return [Json({**schema, **definitions})]
    if types == {"string"} and not any(key in schema for key in CONDITIONS):
        return [plain_string(schema)]
    return _union(schema, definitions, types)


def _union(schema: Schema, definitions: Schema, types: frozenset[str]) -> Sequence[Form]:
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        resolved = [_resolved(option, definitions) for option in options]
        forms = [form for option in resolved for form in _forms(option, definitions)]
    else:
        rest = sorted(types - {"string"})
        forms = [
            plain_string(schema),
            *[Json({**schema, **definitions, "type": rest})] * bool(rest),
        ]
    # An unrestricted string includes all other forms.
    return [Plain()] if Plain() in forms else forms


def _choice(values: Sequence[Any]) -> Choice:
    written: dict[str, str] = {}
    for value in values:
        written.setdefault(value if isinstance(value, str) else dump(value), dump(value))
    return Choice(written)


def plain_string(schema: Schema) -> Plain:
    """The form of a string with the schema's restrictions."""
    least, most = schema.get("minLength") or 0, schema.get("maxLength")
    constraints = []
    if least or most is not None:
        constraints.append(f"(?s:.{{{least},{'' if most is None else most}}})")
    if pattern := schema.get("pattern"):
        constraints.append(_anywhere(pattern))
    return Plain(tuple(constraints), may_be_empty=not least and not pattern)


def _anywhere(pattern: str) -> str:
    """A pattern that must match the whole text, from one that may match anywhere in it."""
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    inner = pattern[begins : len(pattern) - ends]
    return f"{'' if begins else '(?s:.*)'}(?:{inner}){'' if ends else '(?s:.*)'}"
