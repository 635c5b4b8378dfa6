"""Prepares a client's JSON Schema for a grammar.

JSON Schema allows whatever it does not forbid; a model held to that could add properties without
end. An object that lists its properties is therefore closed, as clients mean it: they refuse or
ignore what they did not list. Where schemas are combined nothing is closed, since a part of a
combination does not know the properties of the others.
"""

from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_COMBINERS: Final = ("allOf", "anyOf", "oneOf", "$ref", "not", "if")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS: Final = ("properties", "$defs", "definitions", "patternProperties")
_SINGLE: Final = ("items", "additionalProperties", "contains")
# Says nothing about values.
_NOTES: Final = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"}
)
# Restricts values in ways that a grammar may fail to express.
_FINE_PRINT: Final = frozenset({"pattern", "format", "multipleOf"})


def arguments_schema(input_schema: Schema | None) -> dict[str, Any]:
    """What a tool's arguments must be: an object, closed unless it says otherwise."""
    schema = closed(input_schema or {})
    schema["type"] = "object"
    # A tool that lists no property takes none, whether it says so by an empty list or by silence.
    is_open = any(key in schema for key in (*_COMBINERS, "additionalProperties"))
    if not is_open and not schema.get("properties"):
        schema |= {"properties": {}, "additionalProperties": False}
    return schema


def closed(schema: Schema, *, close: bool = True) -> dict[str, Any]:
    """A copy in which objects that list their properties have no others.

    Args:
        close: false for a schema that is one part of a combination.
    """
    result = {key: value for key, value in schema.items() if key not in _NOTES}
    combined = any(key in schema for key in _COMBINERS)
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


def without_fine_print(schema: Any) -> Any:
    """A copy without what grammars most often cannot express: looser, but still of the form."""
    if isinstance(schema, list):
        return [without_fine_print(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, Mapping):
            result[key] = {name: without_fine_print(inner) for name, inner in value.items()}
        elif key in ("enum", "const"):
            result[key] = value
        elif key not in _FINE_PRINT:
            result[key] = without_fine_print(value)
    return result


def _inner(schema: Any, *, close: bool = True) -> Any:
    return closed(schema, close=close) if isinstance(schema, Mapping) else schema


def _close(schema: dict[str, Any]) -> None:
    if (
        not isinstance(schema.get("additionalProperties"), Mapping)
        or not schema["additionalProperties"]
    ):
        schema["additionalProperties"] = False
    # What is required must be possible.
    missing = [key for key in schema.get("required", ()) if key not in schema["properties"]]
    schema["properties"] = {**schema["properties"], **{key: {} for key in missing}}
