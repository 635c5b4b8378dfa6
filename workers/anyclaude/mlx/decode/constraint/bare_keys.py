"""The grammar of arguments with bare keys (Gemma), made from a JSON Schema.

llguidance turns schemas into grammars for JSON only, so the rules for objects, arrays and strings
are written here, and numbers and booleans are left to it. A schema that these rules cannot express
is refused, and the caller tries a looser one.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from anyclaude.mlx.decode.constraint.lark import Lark, quoted
from anyclaude.mlx.decode.constraint.parameters import plain_string
from anyclaude.mlx.decode.constraint.schemas import (
    COMBINERS,
    Combiner,
    NotExpressibleError,
    Schema,
    types_of,
    without,
)

_KEY: Final = r'[^\s:,{}\[\]<"]+'
_NUMERIC: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
# Keywords that are not expressed here, with the values by which they ask for nothing.
_UNSUPPORTED: Final[Mapping[str, Any]] = {
    "uniqueItems": False,
    "contains": True,
    "patternProperties": {},
    "propertyNames": {},
    "minProperties": 0,
    "maxProperties": None,
    "dependentRequired": {},
    "dependentSchemas": {},
    "not": False,
    "if": {},
}


class BareKeyRules:
    """The rules for the arguments of one tool."""

    def __init__(self, lark: Lark, quote: str, schema: Schema) -> None:
        self._lark = lark
        self._quote = quote
        self._schema = schema
        self._combiner = Combiner(schema, coerce=lark.coerces)
        self._by_reference: dict[str, str] = {}
        self._anything: str | None = None

    def rule(self) -> str:
        """The rule for the whole object.

        Raises:
            NotExpressibleError: the schema cannot be expressed.
        """
        return self._value(self._schema)

    def _value(self, schema: Any) -> str:
        if schema is True or schema == {}:
            return self._any_value()
        if not isinstance(schema, Mapping):
            raise NotExpressibleError("a schema that no value fits")
        if "$ref" in schema:
            return self._referenced(schema)
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            return self._lark.alternatives(self._lark.literal(self._written(v)) for v in values)
        if any(key in schema for key in COMBINERS):
            return self._lark.alternatives(map(self._value, self._combiner.options(schema)))
        self._refuse_unsupported(schema)
        return self._lark.alternatives(self._typed(schema, types_of(schema)))

    def _typed(self, schema: Schema, types: Iterable[str]) -> Iterable[str]:
        for name in sorted(types):
            match name:
                case "string":
                    yield self._string(schema)
                case "array":
                    yield self._array(schema)
                case "object":
                    yield _Members(self._lark, self._value, schema).rule()
                case _:
                    numeric = {key: schema[key] for key in _NUMERIC if key in schema}
                    yield self._lark.json({"type": name, **numeric})

    def _any_value(self) -> str:
        if self._anything is None:
            self._anything = self._lark.declare()
            self._lark.define(self._anything, " | ".join(self._typed({}, types_of({}))))
        return self._anything

    def _referenced(self, schema: Schema) -> str:
        reference = str(schema["$ref"])
        if rest := without(schema, "$ref", "$defs", "definitions"):
            return self._value(self._combiner.merged(rest, self._combiner.target(reference)))
        if reference not in self._by_reference:
            # The rule has its name before its body, since it may contain itself.
            self._by_reference[reference] = name = self._lark.declare()
            self._lark.define(name, self._value(self._combiner.target(reference)))
        return self._by_reference[reference]

    def _refuse_unsupported(self, schema: Schema) -> None:
        unsupported = [key for key, free in _UNSUPPORTED.items() if schema.get(key, free) != free]
        if unsupported and not self._lark.coerces:
            raise NotExpressibleError(", ".join(unsupported))

    def _written(self, value: Any) -> str:
        """The text of one value of an enumeration."""
        match value:
            case str():
                if self._quote in value:
                    raise NotExpressibleError("a text that contains the quote mark")
                return f"{self._quote}{value}{self._quote}"
            case list():
                return "[" + ",".join(map(self._written, value)) + "]"
            case dict():
                pairs = [f"{_bare(key)}:{self._written(value[key])}" for key in _in_order(value)]
                return "{" + ",".join(pairs) + "}"
        return json.dumps(value)

    def _string(self, schema: Schema) -> str:
        lark, plain = self._lark, plain_string(schema)
        quote = lark.literal(self._quote)
        if lark.first_marker(self._quote):
            text = lark.terminal(plain.constraints, without=self._quote)
            return lark.rule(f"{quote} {text}{'?' * plain.may_be_empty} {quote}")
        text = lark.terminal(plain.constraints)
        return lark.rule(f"{quote} {lark.rule(text, f'[suffix={quoted(self._quote)}]')}")

    def _array(self, schema: Schema) -> str:
        first, items = schema.get("prefixItems", []), schema.get("items", True)
        if isinstance(items, list):
            # Earlier drafts of JSON Schema name the first elements so.
            first, items = items, schema.get("additionalItems", True)
        least, most = schema.get("minItems") or 0, schema.get("maxItems")
        if items is False:
            most = len(first) if most is None else min(most, len(first))
        first = first[:most]
        tail = ""
        if most is None or most > len(first):
            tail = self._items(items, len(first), least, most)
        for at in reversed(range(len(first))):
            comma = '"," ' if at else ""
            tail = f"{comma}{self._value(first[at])} {tail}"
            tail = f"({tail})?" if at >= least else tail
        return self._lark.rule(f'"[" {tail} "]"')

    def _items(self, items: Any, before: int, least: int, most: int | None) -> str:
        """The elements after those that have schemas of their own."""
        item, alone = self._value(items), not before
        fewest = max(least - before - alone, 0)
        limit = "" if most is None else str(most - before - alone)
        more = "" if limit == "0" else f'("," {item}){{{fewest},{limit}}}'
        if not alone:
            return more
        return f"({item} {more})" if least else f"({item} {more})?"


class _Members:
    """The rules for the members of one object, in alphabetical order."""

    def __init__(self, lark: Lark, value: Callable[[Any], str], schema: Schema) -> None:
        self._lark = lark
        self._value = value
        self._required = set(schema.get("required", ()))
        listed = {**dict.fromkeys(self._required, True), **schema.get("properties", {})}
        self._schemas = [(name, listed[name]) for name in _in_order(listed)]
        # An object that lists its properties allows no others, as in `schemas.closed`.
        additional = schema.get("additionalProperties", not listed)
        self._more = "" if additional is False else self._others(additional)
        self._members: dict[int, str] = {}

    def rule(self) -> str:
        options = [self._from(0)] if self._schemas or self._more else []
        options += ['""'] * self._may_end(0)
        return self._lark.rule(f'"{{" ({" | ".join(options)}) "}}"')

    def _others(self, schema: Any) -> str:
        """One or more members that the schema does not list."""
        listed = [name for name, _ in self._schemas]
        key = self._lark.terminal([_KEY], other_than=listed)
        member = f'{key} ":" {self._value(schema)}'
        return self._lark.rule(f'{member} ("," {member})*')

    def _may_end(self, at: int) -> bool:
        return not any(name in self._required for name, _ in self._schemas[at:])

    def _from(self, at: int) -> str:
        """One of the members from index `at` on, and all that follow it."""
        options = []
        for index in range(at, len(self._schemas)):
            options.append(self._member(index))
            if self._schemas[index][0] in self._required:
                break
        else:
            options += [self._more] * bool(self._more)
        return f"({' | '.join(options)})"

    def _member(self, index: int) -> str:
        if index not in self._members:
            name, schema = self._schemas[index]
            following = index + 1
            goes_on = []
            if following < len(self._schemas) or self._more:
                goes_on.append(f'"," {self._from(following)}')
            goes_on += ['""'] * self._may_end(following)
            key = self._lark.literal(_bare(name))
            self._members[index] = self._lark.rule(
                f'{key} ":" {self._value(schema)} ({" | ".join(goes_on)})'
            )
        return self._members[index]


def _bare(name: str) -> str:
    if not re.fullmatch(_KEY, name):
        raise NotExpressibleError("a property name with punctuation")
    return name


def _in_order(members: Mapping[str, Any]) -> list[str]:
    """The names in the order in which templates sort them."""
    return sorted(members, key=str.lower)
