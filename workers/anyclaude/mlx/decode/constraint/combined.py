"""JSON Schemas made of others: references followed, combinations multiplied out.

The result never allows more than the schema, unless `coerce` asks for a looser one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from anyclaude.mlx.decode.coercion import declared_types
from anyclaude.mlx.decode.constraint.schemas import Schema

# By which a schema without a type shows which one it means.
_TELLING: Final = {
    "object": ("properties", "additionalProperties", "required"),
    "array": ("items", "prefixItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "multipleOf"),
}
_ALL_TYPES: Final = frozenset({"string", "number", "boolean", "null", "array", "object"})
_COMBINERS: Final = ("allOf", "anyOf", "oneOf")


class NotExpressible(ValueError):
    """The schema asks for what a grammar cannot say; the text names the keyword."""


def types_of(schema: Schema) -> frozenset[str]:
    """The types a schema allows, or what its keywords mean when it does not say."""
    if declared := declared_types(schema):
        return declared
    for name, keys in _TELLING.items():
        if any(key in schema for key in keys):
            return frozenset({name})
    return _ALL_TYPES


def without(schema: Schema, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


class Combiner:
    """For one tool's schema, in which references lead."""

    def __init__(self, root: Schema, *, coerce: bool) -> None:
        self._root = root
        self._coerce = coerce

    def target(self, reference: str) -> Any:
        """What a reference leads to.

        Raises:
            NotExpressible: nothing, or another reference.
        """
        found: Any = self._root
        path, *parts = reference.split("/")
        for part in parts:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if path != "#" or found is None or (isinstance(found, Mapping) and "$ref" in found):
            raise NotExpressible("a reference")
        return found

    def options(self, schema: Schema) -> Iterator[dict[str, Any]]:
        """The schemas of which one has to fit, none of them a combination of the first kind met.

        Raises:
            NotExpressible: two parts of a combination cannot be told apart, or brought together.
        """
        key = next(key for key in _COMBINERS if key in schema)
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
        """A schema for what fits both."""
        if other is True:
            return dict(one)
        if not isinstance(other, Mapping):
            raise NotExpressible("a schema that nothing fits")
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
            raise NotExpressible(f"{key} said twice")
        return other


def _refuse_overlap(options: Sequence[Schema]) -> None:
    if not all(_apart(one, other) for one, other in combinations(options, 2)):
        raise NotExpressible("oneOf")


def _apart(one: Schema, other: Schema) -> bool:
    """Whether it is plain that nothing fits both."""
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
        and _apart(properties[0][name], properties[1][name])
        for name in required[0] & required[1] & properties[0].keys() & properties[1].keys()
        if isinstance(properties[0][name], Mapping) and isinstance(properties[1][name], Mapping)
    )


def _comparable(schema: Schema) -> frozenset[str]:
    types = types_of(schema)
    return types | {"number"} if "integer" in types else types


def _values(schema: Schema) -> list[str] | None:
    """The values it lists, as JSON; None when it does not."""
    if "const" in schema:
        return [json.dumps(schema["const"], sort_keys=True)]
    if "enum" in schema:
        return [json.dumps(value, sort_keys=True) for value in schema["enum"]]
    return None
