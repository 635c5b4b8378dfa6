"""Prepares a client's JSON Schema for a grammar.

JSON Schema allows whatever it does not forbid, so a model could add properties without end. An
object that lists its properties is therefore closed: clients mean it so, and refuse or ignore other
properties. Where schemas are combined (`allOf` and so on) nothing is closed, since one part of a
combination does not know the properties of the others.

llguidance resolves references and combinations for JSON only. For other notations `Combiner` turns
them into plain alternatives, which never allow more than the schema unless `coerce` asks for it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from anyclaude.mlx.decode.coercion import declared_types

Schema = Mapping[str, Any]

COMBINERS: Final = ("allOf", "anyOf", "oneOf")
# Keywords that make a schema depend on other schemas.
CONDITIONS: Final = (*COMBINERS, "$ref", "not", "if")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS: Final = ("properties", "$defs", "definitions", "patternProperties")
_SINGLE: Final = ("items", "additionalProperties", "contains")
# Keywords that say nothing about values.
_NOTES: Final = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"}
)
# Keywords that restrict values in ways which a grammar often cannot express.
_DETAILS: Final = frozenset({"pattern", "format", "multipleOf"})


def arguments_schema(input_schema: Schema | None) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, closed unless it says otherwise."""
    schema = closed(input_schema or {})
    schema["type"] = "object"
    # A tool that lists no properties has no arguments, whether the list is empty or missing.
    is_open = any(key in schema for key in (*CONDITIONS, "additionalProperties"))
    if not is_open and not schema.get("properties"):
        schema |= {"properties": {}, "additionalProperties": False}
    return schema


def closed(schema: Schema, *, close: bool = True) -> dict[str, Any]:
    """A copy in which objects that list their properties allow no others.

    Args:
        close: false if the schema is one part of a combination.
    """
    result = {key: value for key, value in schema.items() if key not in _NOTES}
    combined = any(key in schema for key in CONDITIONS)
    lists_properties = bool(schema.get("properties"))
    for key in _MAPS:
        if isinstance(inner := result.get(key), Mapping):
            result[key] = {name: _inner(value) for name, value in inner.items()}
    for key in _SINGLE:
        if isinstance(inner := result.get(key), Mapping):
            result[key] = closed(inner)
    for key in _LISTS:
        if isinstance(options := result.get(key), list):
            whole = key == "prefixItems" or (key != "allOf" and not lists_properties and close)
            result[key] = [_inner(option, close=whole) for option in options]
    if lists_properties and close and not combined:
        _close(result)
    return result


def without_details(schema: Any) -> Any:
    """A looser copy, without the keywords that a grammar most often cannot express."""
    if isinstance(schema, list):
        return [without_details(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, Mapping):
            result[key] = {name: without_details(inner) for name, inner in value.items()}
        elif key in ("enum", "const"):
            result[key] = value
        elif key not in _DETAILS:
            result[key] = without_details(value)
    return result


def _inner(schema: Any, *, close: bool = True) -> Any:
    return closed(schema, close=close) if isinstance(schema, Mapping) else schema


def _close(schema: dict[str, Any]) -> None:
    if (
        not isinstance(schema.get("additionalProperties"), Mapping)
        or not schema["additionalProperties"]
    ):
        schema["additionalProperties"] = False
    # A required property must be allowed.
    missing = [key for key in schema.get("required", ()) if key not in schema["properties"]]
    schema["properties"] = {**schema["properties"], **{key: {} for key in missing}}


# Keywords that show which type a schema means if it declares none.
_TYPE_KEYWORDS: Final = {
    "object": ("properties", "additionalProperties", "required"),
    "array": ("items", "prefixItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "multipleOf"),
}
_ALL_TYPES: Final = frozenset({"string", "number", "boolean", "null", "array", "object"})


class NotExpressibleError(ValueError):
    """A grammar cannot express the schema; the message names the keyword."""


def types_of(schema: Schema) -> frozenset[str]:
    """The types that a schema declares, or that its keywords imply if it declares none."""
    if declared := declared_types(schema):
        return declared
    for name, keys in _TYPE_KEYWORDS.items():
        if any(key in schema for key in keys):
            return frozenset({name})
    return _ALL_TYPES


def without(schema: Schema, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


class Combiner:
    """Resolves references and combinations within one tool's schema."""

    def __init__(self, root: Schema, *, coerce: bool) -> None:
        self._root = root
        self._coerce = coerce

    def target(self, reference: str) -> Any:
        """The schema that a reference names.

        Raises:
            NotExpressibleError: there is none, or it is a reference itself.
        """
        found: Any = self._root
        path, *parts = reference.split("/")
        for part in parts:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if path != "#" or found is None or (isinstance(found, Mapping) and "$ref" in found):
            raise NotExpressibleError("a reference")
        return found

    def options(self, schema: Schema) -> Iterator[dict[str, Any]]:
        """The alternatives that a combination stands for, without its keyword.

        Raises:
            NotExpressibleError: parts of the combination overlap or cannot be merged.
        """
        key = next(key for key in COMBINERS if key in schema)
        rest, parts = without(schema, key), schema[key]
        if key == "allOf":
            for part in parts:
                rest = self.merged(rest, part)
            yield rest
            return
        merged = [self.merged(rest, part) for part in parts]
        if key == "oneOf" and not self._coerce:
            _refuse_overlap(merged)
        yield from merged

    def merged(self, one: Schema, other: Any) -> dict[str, Any]:
        """A schema for the values that fit both schemas."""
        if other is True:
            return dict(one)
        if not isinstance(other, Mapping):
            raise NotExpressibleError("a schema that no value fits")
        if "$ref" in other:
            target = self.target(str(other["$ref"]))
            other = self.merged(without(other, "$ref"), target)
        result = dict(one)
        for key, value in other.items():
            result[key] = self._both(key, result[key], value) if key in result else value
        return result

    def _both(self, key: str, one: Any, other: Any) -> Any:
        if one == other:
            return one
        match key:
            case "required":
                return [*one, *(name for name in other if name not in one)]
            case "properties" | "$defs" | "definitions":
                common = {name: self.merged(one[name], other[name]) for name in one.keys() & other}
                return {**one, **other, **common}
            case "additionalProperties" if False in (one, other):
                return False
            case "type" if types := declared_types({"type": one}) & declared_types({"type": other}):
                return sorted(types)
        if not self._coerce:
            raise NotExpressibleError(f"{key} given twice")
        return other


def _refuse_overlap(options: Sequence[Schema]) -> None:
    if not all(_are_disjoint(one, other) for one, other in combinations(options, 2)):
        raise NotExpressibleError("oneOf")


def _are_disjoint(one: Schema, other: Schema) -> bool:
    """Whether it is certain that no value fits both schemas."""
    if not _comparable(one) & _comparable(other):
        return True
    values = _values(one), _values(other)
    if None not in values:
        return not set(values[0] or ()) & set(values[1] or ())
    properties = one.get("properties", {}), other.get("properties", {})
    required = set(one.get("required", ())), set(other.get("required", ()))
    for closed, named, needed in (
        (one, *properties[:1], required[1]),
        (other, *properties[1:], required[0]),
    ):
        if closed.get("additionalProperties") is False and needed - set(named):
            return True
    return any(
        {"enum", "const"} & properties[0][name].keys()
        and {"enum", "const"} & properties[1][name].keys()
        and _are_disjoint(properties[0][name], properties[1][name])
        for name in required[0] & required[1] & properties[0].keys() & properties[1].keys()
        if isinstance(properties[0][name], Mapping) and isinstance(properties[1][name], Mapping)
    )


def _comparable(schema: Schema) -> frozenset[str]:
    types = types_of(schema)
    return types | {"number"} if "integer" in types else types


def _values(schema: Schema) -> list[str] | None:
    """The values that the schema lists, as JSON; None if it lists none."""
    if "const" in schema:
        return [json.dumps(schema["const"], sort_keys=True)]
    if "enum" in schema:
        return [json.dumps(value, sort_keys=True) for value in schema["enum"]]
    return None
