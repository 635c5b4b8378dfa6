"""The grammar of one value, made from a JSON Schema: JSON, or the notation with bare keys (Gemma).

llguidance turns schemas into grammars for JSON only, and fixes the order of an object's keys. So
the rules for objects and arrays are written here, and for bare keys those of strings too; all else
is left to it. In JSON, what these rules cannot express is left to it as a whole.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from anyclaude.mlx.decode.constraint.lark import Lark, quoted
from anyclaude.mlx.decode.constraint.members import MemberRules, json_object
from anyclaude.mlx.decode.constraint.parameters import (
    ITEM_SEPARATOR,
    WORDS,
    Parameter,
    dump,
    parameters,
    plain_string,
)
from anyclaude.mlx.decode.constraint.schemas import (
    COMBINERS,
    Combiner,
    NotExpressibleError,
    Schema,
    definition_name,
    parts_of,
    types_of,
    without,
)
from anyclaude.mlx.decode.notation import TaggedNotation

_NAME: Final = r'[^\s:,{}\[\]<"]+'
# Values that are nested deeper are written as JSON, since rules recurse with each level.
_PYTHON_DEPTH: Final = 12
_NUMERIC: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_BARE_MEMBERS: Final = TaggedNotation(
    before_name="",
    after_name=(),
    before_key="",
    after_key=":",
    after_value="",
    after_arguments="}",
    separator=",",
    plain_strings=False,
)


class _Values:
    """The rules for values of one tool. A rule is made once for each definition."""

    separator: str

    def __init__(self, lark: Lark, root: Schema) -> None:
        self._lark = lark
        self._definitions = {"$defs": root["$defs"]} if "$defs" in root else {}
        self._combiner = Combiner(root)
        # The rules for references and combinations, which may contain themselves.
        self._named: dict[str, str] = {}
        # The rule for any value, once it is made.
        self._anything: str | None = None

    def rule(self, schema: Any) -> str:
        """The rule for a value.

        Raises:
            NotExpressibleError: the schema cannot be expressed.
        """
        schema = without(schema, "$defs") if isinstance(schema, Mapping) else schema
        if schema is True or schema == {}:
            return self._any_value()
        if not isinstance(schema, Mapping):
            raise NotExpressibleError("a schema that no value fits")
        if "$ref" in schema:
            return self._referenced(schema)
        if "enum" in schema:
            texts = (text for value in schema["enum"] for text in self._spellings(value))
            return self._lark.alternatives(map(self._lark.literal, texts))
        if any(key in schema for key in COMBINERS):
            return self._once(schema, self._combiner.options(schema))
        return self._lark.alternatives(self._typed(schema, types_of(schema)))

    def _typed(self, schema: Schema, types: Iterable[str]) -> Iterable[str]:
        for name in sorted(types):
            match name:
                case "string":
                    yield self._string(schema)
                case "array":
                    yield self._array(schema)
                case "object":
                    found = parameters({**schema, **self._definitions}, plain_strings=False)
                    yield self._lark.rule(self._object(found))
                case _:
                    numeric = {key: schema[key] for key in _NUMERIC if key in schema}
                    yield self._lark.json({"type": name, **numeric})

    def _any_value(self) -> str:
        if self._anything is None:
            self._anything = self._lark.declare()
            self._lark.define(self._anything, " | ".join(self._typed({}, types_of({}))))
        return self._anything

    def _string(self, schema: Schema) -> str:
        raise NotImplementedError

    def _spellings(self, value: Any) -> list[str]:
        """The texts for one value of an enumeration."""
        raise NotImplementedError

    def _object(self, members: list[Parameter]) -> str:
        raise NotImplementedError

    def _referenced(self, schema: Schema) -> str:
        target = self._combiner.target(str(schema["$ref"]))
        rest = without(schema, "$ref")
        return self._once(schema, [self._combiner.merged(rest, target) if rest else target])

    def _once(self, schema: Schema, options: Iterable[Any]) -> str:
        """The rule for one of several schemas, which `schema` stands for."""
        key = json.dumps(schema)
        if key not in self._named:
            alternatives = list(options)
            # The rule has its name before its body, since it may contain itself.
            self._named[key] = name = self._lark.declare()
            self._lark.define(name, " | ".join(map(self.rule, alternatives)))
        return self._named[key]

    def _comma(self) -> str:
        return quoted(self.separator)

    def _array(self, schema: Schema) -> str:
        first, items = schema.get("prefixItems", []), schema.get("items", True)
        least, most = schema.get("minItems") or 0, schema.get("maxItems")
        if items is False:
            most = len(first) if most is None else min(most, len(first))
        first = first[:most]
        tail = ""
        if most is None or most > len(first):
            tail = self._items(items, len(first), least, most)
        for at in reversed(range(len(first))):
            comma = f"{self._comma()} " if at else ""
            tail = f"{comma}{self.rule(first[at])} {tail}"
            tail = f"({tail})?" if at >= least else tail
        return self._lark.rule(f'"[" {tail} "]"')

    def _items(self, items: Any, before: int, least: int, most: int | None) -> str:
        """The elements after those that have schemas of their own."""
        item, alone = self.rule(items), not before
        fewest = max(least - before - alone, 0)
        limit = "" if most is None else str(most - before - alone)
        comma = self._comma()
        more = "" if limit == "0" else f"({comma} {item}){{{fewest},{limit}}}"
        if not alone:
            return more
        return f"({item} {more})" if least else f"({item} {more})?"


class BareValues(_Values):
    """Values in the notation with bare keys."""

    separator = ","

    def __init__(self, lark: Lark, quote: str, root: Schema) -> None:
        super().__init__(lark, root)
        self._quote = quote

    def _object(self, members: list[Parameter]) -> str:
        if any(not is_bare(member.name) for member in members if not member.unlisted):
            raise NotExpressibleError("a property name with punctuation")
        return f'"{{" {MemberRules(self._lark, _BARE_MEMBERS, members, self.rule, _NAME).rule()}'

    def _spellings(self, value: Any) -> list[str]:
        return [self._written(value)]

    def _written(self, value: Any) -> str:
        match value:
            case str():
                if self._quote in value:
                    raise NotExpressibleError("a text that contains the quote mark")
                return f"{self._quote}{value}{self._quote}"
            case list():
                return "[" + ",".join(map(self._written, value)) + "]"
            case dict():
                if not all(map(is_bare, value)):
                    raise NotExpressibleError("a property name with punctuation")
                # Templates sort the names so.
                names = sorted(value, key=str.lower)
                return "{" + ",".join(f"{n}:{self._written(value[n])}" for n in names) + "}"
        return json.dumps(value)

    def _string(self, schema: Schema) -> str:
        lark, plain = self._lark, plain_string(schema)
        quote = lark.literal(self._quote)
        if lark.first_marker(self._quote):
            text = lark.terminal(plain.constraints, without=self._quote)
            return lark.rule(f"{quote} {text}{'?' * plain.may_be_empty} {quote}")
        text = lark.terminal(plain.constraints)
        return lark.rule(f"{quote} {lark.rule(text, f'[suffix={quoted(self._quote)}]')}")


def is_bare(name: str) -> bool:
    """Whether a property's name can be written without quotes."""
    return re.fullmatch(_NAME, name) is not None


class JsonValues(_Values):
    """Values in JSON.

    llguidance knows more of JSON Schema than the rules here, so they are only used for what
    contains an object with several properties.
    """

    separator = ITEM_SEPARATOR

    def rule(self, schema: Any) -> str:
        schema = without(schema, "$defs")
        if self._is_ours(schema) and self._has_order(schema, frozenset()):
            with suppress(NotExpressibleError):
                return super().rule(schema)
        return self._lark.json({**schema, **self._reachable(schema)})

    def _is_ours(self, schema: Schema) -> bool:
        """Whether the rules here can express the schema itself, whatever its parts are.

        A schema that they cannot express raises no later than where its alternatives are made,
        before a rule is added.
        """
        return "enum" not in schema and (not schema.keys() & {"anyOf"} or len(schema) == 1)

    def _has_order(self, schema: Any, seen: frozenset[str]) -> bool:
        """Whether a value of the schema may contain an object with several properties."""
        if not isinstance(schema, Mapping):
            return False
        if "allOf" in schema or ("$ref" in schema and len(schema) > 1):
            return True
        if reference := schema.get("$ref"):
            if reference in seen:
                return False
            return self._has_order(self._combiner.target(reference), seen | {reference})
        properties = schema.get("properties", {})
        if len(properties) > 1 or (properties and schema.get("additionalProperties")):
            return True
        inner = [*properties.values(), schema.get("items"), schema.get("additionalProperties")]
        inner += [part for key in ("anyOf", "prefixItems") for part in schema.get(key, ())]
        return any(self._has_order(part, seen) for part in inner)

    def _reachable(self, schema: Schema) -> dict[str, Any]:
        """The definitions that the schema refers to, directly or by others."""
        defined = self._combiner.definitions
        references = (part.get("$ref") for part in parts_of(schema, defined))
        names = {definition_name(found) for found in references if isinstance(found, str)}
        return {"$defs": {name: defined[name] for name in sorted(names)}} if names else {}

    def _object(self, members: list[Parameter]) -> str:
        return json_object(self._lark, members, self.rule)

    def _comma(self) -> str:
        return self._lark.separator(self.separator)

    def _any_value(self) -> str:
        return self._lark.json({})

    def _string(self, schema: Schema) -> str:
        keys = ("minLength", "maxLength", "pattern", "format")
        kept = {key: schema[key] for key in keys if key in schema}
        return self._lark.json({"type": "string", **kept})


class PythonValues(JsonValues):
    """Values in the notation of pythonic calls: JSON, or Python's literals for the same values."""

    def __init__(self, lark: Lark, root: Schema) -> None:
        super().__init__(lark, root)
        self._depth = 0

    def rule(self, schema: Any) -> str:
        self._depth += 1
        try:
            return super().rule({} if schema is True else schema)
        finally:
            self._depth -= 1

    def _is_ours(self, schema: Schema) -> bool:
        return not schema or super()._is_ours(without(schema, "enum"))

    def _has_order(self, schema: Any, seen: frozenset[str]) -> bool:
        return self._depth <= _PYTHON_DEPTH

    def _typed(self, schema: Schema, types: Iterable[str]) -> Iterable[str]:
        for name in types:
            if name in WORDS:
                yield self._lark.alternatives(map(self._lark.literal, WORDS[name]))
            else:
                yield from super()._typed(schema, [name])

    def _any_value(self) -> str:
        return _Values._any_value(self)

    def _string(self, schema: Schema) -> str:
        json_string = super()._string(schema)
        if schema.keys() & {"pattern", "format"}:
            return json_string
        least, most = schema.get("minLength") or 0, schema.get("maxLength")
        length = f"{{{least},{'' if most is None else most}}}"
        text = self._lark.terminal([rf"(?s:'(?:[^'\\]|\\.){length}')"])
        return self._lark.alternatives([json_string, text])

    def _spellings(self, value: Any) -> list[str]:
        return list(dict.fromkeys([dump(value), repr(value)]))
