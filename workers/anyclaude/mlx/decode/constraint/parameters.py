"""The arguments of a call one by one, derived from the tool's JSON Schema.

In a notation with plain strings a string is written as it is, and every other value as JSON. The
schema of an argument decides both how the grammar allows it to be written and how it is read.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.mlx.decode.coercion import declared_types
from anyclaude.mlx.decode.constraint.schemas import (
    CONDITIONS,
    Combiner,
    NotExpressibleError,
    Schema,
    without,
)

# The values of each type as JSON, by the words of JSON and of Python for them.
WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "boolean": {"true": "true", "false": "false", "True": "true", "False": "false"},
    "null": {"null": "null", "None": "null"},
}
# Keywords that exclude some of these values.
_OTHERS: Final = ("enum", *CONDITIONS)
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
    """A value in the notation's form for nested values, which is JSON in most notations."""

    schema: Schema


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    # The JSON of each value by the text that is written for it.
    values: Mapping[str, str]


Form = Plain | Json | Choice


@dataclass(frozen=True)
class Unlisted:
    """The names of arguments that the schema does not list.

    Attributes:
        pattern: a regular expression for the whole name; "" if every name is allowed.
        other_than: the names that the schema lists.
        but_not: regular expressions for names that have schemas of their own.
    """

    pattern: str
    other_than: tuple[str, ...]
    but_not: tuple[str, ...] = ()

    def fits(self, name: str) -> bool:
        try:
            return not self.pattern or re.fullmatch(self.pattern, name, re.ASCII) is not None
        except re.error:
            # The grammar knows kinds of patterns that Python does not.
            return True


@dataclass(frozen=True)
class Parameter:
    """One argument, or with `unlisted` any number of arguments that the schema does not list."""

    name: str
    required: bool
    # How the argument may be written; if there are several forms, reading tries all of them.
    forms: tuple[Form, ...]
    # The whole schema, by which the right reading of a text is chosen.
    schema: Schema
    type_name: str
    unlisted: Unlisted | None = None


def dump(value: Any) -> str:
    separators = (ITEM_SEPARATOR, KEY_SEPARATOR)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=separators)


def parameters(
    schema: Schema,
    *,
    plain_strings: bool,
    python_words: bool = False,
    marked_strings: bool = False,
) -> list[Parameter]:
    """The arguments of an object schema that combines no others.

    Args:
        plain_strings: whether strings are written without quotes and escapes.
        python_words: whether `True` may be written for `true`, as many templates do.
        marked_strings: whether each argument says of itself whether it is a string.
    """
    required = set(schema.get("required", ()))
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}

    def parameter(name: str, inner: Any, unlisted: Unlisted | None = None) -> Parameter:
        resolved = _resolved(inner, definitions)
        whole = {**resolved, **definitions}
        types = declared_types(resolved)
        # A definition keeps its name, since it may contain itself.
        named = {**inner, **definitions} if isinstance(inner, Mapping) else {}
        forms = _forms(resolved, definitions) if plain_strings else (Json(named),)
        is_word = types and types <= WORDS.keys() and not any(key in resolved for key in _OTHERS)
        if python_words and is_word:
            spellings = [pair for name in sorted(types) for pair in WORDS[name].items()]
            forms = (Choice(dict(spellings)),)
        if marked_strings:
            forms = tuple(_apart(forms, resolved, definitions, types))
        type_name = next(iter(types)) if len(types) == 1 else "string"
        return Parameter(name, name in required, tuple(forms), whole, type_name, unlisted)

    listed = dict(schema.get("properties", {}))
    listed |= {name: {} for name in schema.get("required", ()) if name not in listed}
    names, patterns = tuple(listed), schema.get("patternProperties", {})
    found = [parameter(name, inner) for name, inner in listed.items()]
    wholes = {pattern: anywhere(pattern) for pattern in patterns}
    found += [
        parameter(f"/{pattern}/", inner, Unlisted(wholes[pattern], names))
        for pattern, inner in patterns.items()
    ]
    additional = schema.get("additionalProperties", not listed and not patterns)
    if additional is not False:
        unlisted = Unlisted("", names, tuple(wholes.values()))
        found.append(parameter("/any/", additional, unlisted))
    return found


def is_string(parameter: Parameter) -> bool:
    """Whether an argument is always a string, so that its text can be sent as it arrives."""
    plain = all(isinstance(form, Plain) for form in parameter.forms)
    return plain and declared_types(parameter.schema) == {"string"}


def is_ambiguous(parameter: Parameter) -> bool:
    """Whether one text of the argument may have several readings."""
    return not is_string(parameter) and (
        len(parameter.forms) > 1 or isinstance(parameter.forms[0], Plain)
    )


def _resolved(schema: Any, definitions: Schema) -> dict[str, Any]:
    """The schema, with what it refers to or combines in its place as far as that is possible."""
    if not isinstance(schema, Mapping):
        return {}
    found, combiner = dict(schema), Combiner(definitions)
    try:
        if "$ref" in found:
            target = combiner.target(str(found["$ref"]))
            found = combiner.merged(without(found, "$ref"), target)
        if "allOf" in found:
            found = next(combiner.options(found))
    except NotExpressibleError:
        return dict(schema)
    return found


def _forms(schema: Schema, definitions: Schema) -> Sequence[Form]:
    if "enum" in schema:
        return [_choice(schema["enum"])]
    types = declared_types(schema)
    if "anyOf" in schema and (not types or "string" in types):
        return _union(schema, definitions, types)
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
    options = schema.get("anyOf")
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


def _apart(
    forms: Sequence[Form], schema: Schema, definitions: Schema, types: frozenset[str]
) -> Iterator[Form]:
    """The forms, each of which is either for strings only or for other values only."""
    for form in forms:
        if isinstance(form, Choice):
            for wanted in (True, False):
                values = {
                    text: json for text, json in form.values.items() if wanted is (json[0] == '"')
                }
                if values:
                    yield Choice(values)
        else:
            yield form
    if Plain() in forms and types != {"string"}:
        rest = {"type": sorted(types - {"string"})} if types and "type" in schema else {}
        yield Json({**schema, **definitions, **rest})


def for_strings(form: Form) -> bool:
    """Whether a form that is not for both is for strings."""
    match form:
        case Choice(values):
            return all(json[0] == '"' for json in values.values())
    return isinstance(form, Plain)


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
        constraints.append(anywhere(pattern))
    return Plain(tuple(constraints), may_be_empty=all(map(_fits_empty, constraints)))


def _fits_empty(constraint: str) -> bool:
    try:
        return re.fullmatch(constraint, "") is not None
    except re.error:
        return False


def anywhere(pattern: str) -> str:
    """A pattern that must match the whole text, from one that may match anywhere in it."""
    return "|".join(f"(?:{_whole(option)})" for option in _alternatives(pattern))


def _whole(pattern: str) -> str:
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    inner = pattern[begins : len(pattern) - ends]
    return f"{'' if begins else '(?s:.*)'}(?:{inner}){'' if ends else '(?s:.*)'}"


def _alternatives(pattern: str) -> list[str]:
    """The alternatives of a pattern outside all parentheses, each with its own `^` and `$`."""
    parts, depth, in_class = [""], 0, False
    for sign in re.findall(r"\\.|.", pattern, re.DOTALL):
        in_class = sign != "]" if in_class else sign == "["
        depth += 0 if in_class else {"(": 1, ")": -1}.get(sign, 0)
        if sign == "|" and not depth and not in_class:
            parts.append("")
        else:
            parts[-1] += sign
    return parts
