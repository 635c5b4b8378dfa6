"""Prepares a well-formed JSON Schema (`wellformed.py`) for a grammar.

JSON Schema allows whatever it does not forbid, so a model could add properties without end. An
object that lists its properties is therefore closed: clients mean it so, and refuse or ignore other
properties. Where schemas are combined (`allOf`, `anyOf`, `$ref`) nothing is closed, since one part
of a combination does not know the properties of the others.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from anyclaude.mlx.decode.coercion import declared_types

Schema = Mapping[str, Any]

# Ends the name of a definition that is used as one part of a combination, so that it stays open.
OPEN: Final = "-open"
COMBINERS: Final = ("allOf", "anyOf")
# Keywords that make a schema depend on other schemas.
CONDITIONS: Final = (*COMBINERS, "$ref")
_LISTS: Final = (*COMBINERS, "prefixItems")
_MAPS: Final = ("properties", "$defs", "patternProperties")
_SINGLE: Final = ("items", "additionalProperties")
# Keywords that a grammar most often cannot express, or only in a grammar that is too large.
_DETAILS: Final = frozenset(
    {"pattern", "format", "multipleOf", "patternProperties", "minLength", "maxLength"}
)


def arguments_schema(well_formed: Schema) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, closed unless it says otherwise."""
    schema = closed(well_formed)
    schema["type"] = "object"
    # A tool that lists no properties has no arguments, whether the list is empty or missing.
    says_more = (*CONDITIONS, "additionalProperties", "patternProperties", "required")
    if not any(schema.get(key) for key in (*says_more, "properties")) and (
        "additionalProperties" not in schema
    ):
        schema |= {"properties": {}, "additionalProperties": False}
    return schema


def closed(schema: Schema, *, close: bool = True) -> dict[str, Any]:
    """A copy in which objects that list their properties allow no others.

    Args:
        close: false if the schema is one part of a combination.
    """
    result = dict(schema)
    combined = any(key in schema for key in CONDITIONS)
    lists_properties = bool(schema.get("properties"))
    for key in _MAPS:
        if key in result:
            result[key] = {
                name: _inner(value, close=key != "$defs" or not name.endswith(OPEN))
                for name, value in result[key].items()
            }
    for key in _SINGLE:
        if isinstance(inner := result.get(key), Mapping):
            result[key] = closed(inner)
    for key in _LISTS:
        if options := result.get(key):
            whole = key == "prefixItems" or (key != "allOf" and not lists_properties and close)
            result[key] = [_inner(option, close=whole) for option in options]
    if lists_properties and close and not combined:
        _close(result)
    return result


def _inner(schema: Any, *, close: bool = True) -> Any:
    return closed(schema, close=close) if isinstance(schema, Mapping) else schema


def _close(schema: dict[str, Any]) -> None:
    if not isinstance(schema.get("additionalProperties"), Mapping) or (
        not schema["additionalProperties"]
    ):
        schema["additionalProperties"] = False
    # A required property must be allowed.
    missing = [key for key in schema.get("required", ()) if key not in schema["properties"]]
    schema["properties"] = {**schema["properties"], **{key: {} for key in missing}}


# Looser forms


def without_details(schema: Any) -> Any:
    """A looser copy, without the keywords that a grammar most often cannot express."""
    if isinstance(schema, list):
        return [without_details(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS and key not in _DETAILS:
            result[key] = {name: without_details(inner) for name, inner in value.items()}
        elif key == "enum":
            result[key] = value
        elif key not in _DETAILS:
            result[key] = without_details(value)
    return result


def outline(schema: Any) -> dict[str, Any]:
    """A much looser copy: the types of the value and nothing else."""
    types = sorted(declared_types(schema))
    return {"type": types} if types else {}


def anything(_schema: Any) -> dict[str, Any]:
    """The schema of every value."""
    return {}


# The forms of a schema from the strictest to the loosest, each with what it does not enforce.
LOOSER: Final[tuple[tuple[Callable[[Any], Any], str], ...]] = (
    (without_details, "patterns, formats and lengths"),
    (outline, "all but the type"),
    (anything, "everything"),
)


def flattened(schema: Schema) -> dict[str, Any]:
    """A looser schema of an object, which lists the properties of all that `schema` combines.

    Only what all alternatives require is required. A combination of plain objects that must all
    fit loses nothing.
    """
    gathered = _Gathered(schema.get("$defs", {}))
    required = gathered.add(schema, frozenset())
    properties = {
        name: options[0] if len(options) == 1 else {"anyOf": options}
        for name, options in gathered.properties.items()
    }
    kept = {key: schema[key] for key in ("$defs", "patternProperties") if key in schema}
    result = {**kept, "type": "object", "properties": properties, "required": required}
    if "additionalProperties" in schema:
        result["additionalProperties"] = schema["additionalProperties"]
    elif properties:
        result["additionalProperties"] = False
    missing: Schema = {name: {} for name in required if name not in properties}
    return {**result, "properties": {**properties, **missing}}


class _Gathered:
    """The properties of combined schemas, each with its alternatives."""

    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions
        self.properties: dict[str, list[Any]] = {}

    def add(self, schema: Any, seen: frozenset[str]) -> list[str]:
        """Adds the properties of a schema, and returns the names that it requires."""
        if not isinstance(schema, Mapping):
            return []
        for name, inner in schema.get("properties", {}).items():
            options = self.properties.setdefault(name, [])
            if inner not in options:
                options.append(inner)
        required = list(schema.get("required", ()))
        reference = definition_name(schema.get("$ref", ""))
        if reference and reference not in seen:
            required += self.add(self._definitions.get(reference), seen | {reference})
        for option in schema.get("allOf", ()):
            required += self.add(option, seen)
        needed = [self.add(option, seen) for option in schema.get("anyOf", ())]
        if needed:
            required += [name for name in needed[0] if all(name in other for other in needed)]
        return list(dict.fromkeys(required))


# Keywords that show which type a schema means if it declares none.
_TYPE_KEYWORDS: Final = {
    "object": ("properties", "additionalProperties", "required", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum"),
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


def definition_name(reference: str) -> str:
    """The name in `$defs` that a reference names."""
    return reference.rpartition("/")[2]


def parts_of(schema: Any, definitions: Schema) -> Iterator[Schema]:
    """All schemas within a schema, and within the definitions that it refers to, each once."""
    waiting, seen = [schema], set[str]()
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, Mapping):
            yield part
            reference = part.get("$ref")
            # A property may have this name too, and is then no reference.
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                waiting.append(definitions.get(definition_name(reference)))
            waiting += [inner for key, inner in part.items() if key != "enum"]


class Combiner:
    """Turns the combinations of one tool's schema into plain alternatives."""

    def __init__(self, root: Schema) -> None:
        self.definitions: Schema = root.get("$defs", {})

    def target(self, reference: str) -> Any:
        """The schema that a reference names."""
        return self.definitions[definition_name(reference)]

    def options(self, schema: Schema) -> Iterator[dict[str, Any]]:
        """The alternatives that a combination stands for, without its keyword.

        Raises:
            NotExpressibleError: parts of the combination cannot be merged.
        """
        key = next(key for key in COMBINERS if key in schema)
        rest, parts = without(schema, key), schema[key]
        if not rest and (key == "anyOf" or len(parts) == 1):
            yield from parts
            return
        if key == "allOf":
            for part in parts:
                rest = self.merged(rest, part)
            yield rest
            return
        for part in parts:
            yield self.merged(rest, part)

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
            case "properties":
                both = {name: self.merged(one[name], other[name]) for name in one.keys() & other}
                return {**one, **other, **both}
            case "additionalProperties" if False in (one, other):
                return False
            case "minimum" | "exclusiveMinimum" | "minLength" | "minItems":
                return max(one, other)
            case "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems":
                return min(one, other)
            case "allOf":
                return [*one, *other]
            case "enum" if common := [value for value in one if value in other]:
                return common
            case "type" if types := declared_types({"type": one}) & declared_types({"type": other}):
                return sorted(types)
        raise NotExpressibleError(f"{key} given twice")


def are_disjoint(one: Schema, other: Schema) -> bool:
    """Whether it is certain that no value fits both schemas."""
    if not _comparable(one) & _comparable(other):
        return True
    ours, theirs = _values(one), _values(other)
    if ours is not None and theirs is not None:
        return not set(ours) & set(theirs)
    ours_required, theirs_required = set(one.get("required", ())), set(other.get("required", ()))
    our_members, their_members = one.get("properties", {}), other.get("properties", {})
    for members, needed in ((our_members, theirs_required), (their_members, ours_required)):
        # Objects that list their properties are closed.
        if members and needed - set(members):
            return True
    return any(
        "enum" in our_members[name]
        and "enum" in their_members[name]
        and are_disjoint(our_members[name], their_members[name])
        for name in ours_required & theirs_required & our_members.keys() & their_members.keys()
    )


def _comparable(schema: Schema) -> frozenset[str]:
    types = types_of(schema)
    return types | {"number"} if "integer" in types else types


def _values(schema: Schema) -> list[str] | None:
    """The values that the schema lists, as JSON; None if it lists none."""
    if "enum" not in schema:
        return None
    return [json.dumps(value, sort_keys=True) for value in schema["enum"]]
