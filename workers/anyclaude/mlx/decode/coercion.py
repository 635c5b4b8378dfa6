"""Converts a call's arguments to the types that the tool's JSON Schema declares.

Models write wrong types more often than wrong values. A value that fits no declared type stays as
it is: the client validates the input itself, and its error tells the model what to correct.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from anyclaude.mlx.decode.lenient import read_values

_BOOLEANS: Final = {"true": True, "false": False}
_INTEGER: Final = re.compile(r"[+-]?\d{1,400}(?:\.0*)?")


def coerce_arguments(
    arguments: Mapping[str, Any], schema: Mapping[str, Any], *, untyped: bool
) -> dict[str, Any]:
    """The arguments with the types that `schema` declares.

    Args:
        untyped: whether every value is plain text, so that only the schema tells its type. If
            false, the model chose the types, and only those that the schema forbids are converted.
    """
    properties = properties_of(schema)
    return {
        str(key): _coerce(value, properties.get(key), untyped=untyped)
        for key, value in arguments.items()
    }


def _coerce(value: Any, schema: Any, *, untyped: bool = False) -> Any:
    types = declared_types(schema)
    if untyped and isinstance(value, str):
        return read_untyped(value, schema, types)
    if not types or type_of(value) in types:
        return _coerce_inside(value, schema)
    if isinstance(value, str):
        return _from_text(value, schema, types)
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return int(value)
    if "string" in types and value is not None:
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _coerce_inside(value: Any, schema: Any) -> Any:
    schema = as_mapping(schema)
    if isinstance(value, dict):
        return coerce_arguments(value, schema, untyped=False)
    if isinstance(value, list | tuple):
        return [_coerce(item, schema.get("items")) for item in value]
    return value


def read_untyped(text: str, schema: Any, types: frozenset[str]) -> Any:
    """The value that a plain text stands for."""
    if "string" not in types:
        return _from_text(text, schema, types or frozenset({"object", "array"}))
    # Text stays a string unless the schema also allows an object or array and the text is one.
    return _from_text(text, schema, types & {"null", "object", "array"})


def _from_text(text: str, schema: Any, types: frozenset[str]) -> Any:
    stripped = text.strip()
    if "null" in types and stripped.lower() in ("null", "none"):
        return None
    if "boolean" in types and stripped.lower() in _BOOLEANS:
        return _BOOLEANS[stripped.lower()]
    if types & {"integer", "number"} and _INTEGER.fullmatch(stripped):
        return int(stripped.partition(".")[0])
    if "number" in types and (number := _number(stripped)) is not None:
        return number
    if types & {"object", "array"} and (structure := _structure(stripped, types)) is not None:
        return _coerce_inside(structure, schema)
    return text


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _structure(text: str, types: frozenset[str]) -> dict[str, Any] | list[Any] | None:
    if not text.startswith(("{", "[")):
        return None
    try:
        values = read_values(text)
    except ValueError:
        return None
    value = values[0]
    if len(values) == 1 and isinstance(value, dict | list) and type_of(value) in types:
        return value
    return None


def declared_types(schema: Any) -> frozenset[str]:
    """The types that a schema allows; empty if it does not declare any."""
    schema = as_mapping(schema)
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset({declared})
    if isinstance(declared, list):
        return frozenset(name for name in declared if isinstance(name, str))
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list):
            found = [declared_types(option) for option in options]
            return frozenset().union(*found) if all(found) else frozenset()
    if isinstance(values := schema.get("enum"), list):
        return frozenset(type_of(value) for value in values)
    return frozenset({type_of(schema["const"])}) if "const" in schema else frozenset()


def type_of(value: Any) -> str:
    """The JSON Schema type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list | tuple) else "object"


def properties_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties that an object schema lists; empty if it lists none."""
    return as_mapping(schema.get("properties"))


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping; else an empty one."""
    return value if isinstance(value, Mapping) else {}
