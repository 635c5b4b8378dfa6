"""Loosens the parts of an object's schema that a grammar cannot enforce, and only those.

A property that cannot be expressed, or costs too much, is enforced first without its patterns and
lengths, then by its type, then not at all. The other properties are not affected.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from anyclaude.mlx.decode.constraint.schemas import (
    LOOSER,
    Schema,
    definition_name,
    parts_of,
    without,
)
from anyclaude.mlx.decode.constraint.wellformed import Problem

# Keywords whose cost only shows while tokens are written.
_RISKY: Final = frozenset({"pattern", "patternProperties", "allOf", "multipleOf"})

# Says why a grammar cannot enforce a schema; empty if it can.
Failure = Callable[[Schema], str]


def loosened(
    schema: Schema, problems: Sequence[Problem], failure: Failure, *, verify: bool
) -> tuple[dict[str, Any], list[Problem]]:
    """The schema of an object with each property as strict as it can be.

    Args:
        verify: whether to try each property, and not only those that often fail.
    """
    result, found = dict(schema), list(problems)
    definitions = schema.get("$defs", {})

    def strictest(place: str, inner: Any) -> Any:
        if not verify and not _is_risky(inner, definitions):
            return inner
        return _strictest(place, inner, definitions, failure, found)

    for key in ("properties", "patternProperties"):
        if key in schema:
            result[key] = {name: strictest(name, inner) for name, inner in schema[key].items()}
    if isinstance(additional := schema.get("additionalProperties"), Mapping) and additional:
        result["additionalProperties"] = strictest("", additional)
    for pattern in schema.get("patternProperties", {}):
        alone = {"patternProperties": {pattern: {}}, "additionalProperties": False}
        if cause := failure({"type": "object", **alone}):
            found.append(Problem("", f"patternProperties not enforced: {cause}"))
            return without(result, "patternProperties") | {"additionalProperties": {}}, found
    return result, found


def loosened_whole(
    schema: Schema, problems: Sequence[Problem], failure: Failure
) -> tuple[dict[str, Any], list[Problem]]:
    """The strictest form of any schema that can be enforced as a whole."""
    found = list(problems)
    definitions = schema.get("$defs", {})
    cause = failure(schema)
    for loosen, lost in LOOSER:
        if not cause:
            break
        looser = loosen(inlined(without(schema, "$defs"), definitions))
        if not failure(looser):
            return looser, [*found, Problem("", f"{lost} not enforced: {cause}")]
    return dict(schema), found


def _strictest(
    place: str, schema: Any, definitions: Schema, failure: Failure, problems: list[Problem]
) -> Any:
    def failure_alone(property_schema: Any) -> str:
        alone = {"properties": {"x": property_schema}, "required": ["x"]}
        return failure(
            {"type": "object", **alone, "additionalProperties": False, "$defs": definitions}
        )

    cause, looser = failure_alone(schema), schema
    if cause:
        plain = inlined(schema, definitions)
        for loosen, lost in LOOSER:
            looser = loosen(plain)
            if not failure_alone(looser):
                problems.append(Problem(place, f"{lost} not enforced: {cause}"))
                break
    return looser


def _is_risky(schema: Any, definitions: Schema) -> bool:
    return any(
        _RISKY & part.keys() or ("$ref" in part and len(part) > 1)
        for part in parts_of(schema, definitions)
    )


def inlined(schema: Any, definitions: Schema, inside: frozenset[str] = frozenset()) -> Any:
    """The schema with definitions in place of references; any value where one contains itself."""
    if isinstance(schema, list):
        return [inlined(part, definitions, inside) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    name = schema.get("$ref", "")
    if isinstance(name, str) and name:
        name = definition_name(name)
        if name in inside:
            return {}
        target = inlined(definitions.get(name, {}), definitions, inside | {name})
        return {**target, **inlined(without(schema, "$ref"), definitions, inside)}
    return {
        key: value if key == "enum" else inlined(value, definitions, inside)
        for key, value in schema.items()
    }
