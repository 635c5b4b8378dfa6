"""Makes a well-formed JSON Schema of whatever a client sends as one.

Schemas of MCP servers and OpenAPI documents contain keywords of other drafts, values of the wrong
type, references to places anywhere in the document, and contradictions. `well_formed` accepts any
JSON value. A keyword that it cannot read or that a grammar cannot express is left out, which makes
the schema looser at that place only, and each such place is reported as a `Problem`.

Of the result these hold:
- every keyword is one of `KEYWORDS` and has the type that JSON Schema gives it;
- every reference names an entry of the root's `$defs`, which is no reference itself;
- a reference in a combination names an entry of its own, whose name ends with `OPEN`;
- no value is required to contain itself without end.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final
from urllib.parse import unquote

from anyclaude.mlx.decode.coercion import as_mapping, type_of
from anyclaude.mlx.decode.constraint.schemas import (
    OPEN,
    Schema,
    are_disjoint,
    definition_name,
    parts_of,
    types_of,
)

# Deeper schemas are cut: at this depth any value is allowed.
_MAX_DEPTH: Final = 64
# llguidance stores bounds of lengths in 32 bits, and of integers in 64.
_MAX_LENGTH: Final = 2**31 - 1
_MAX_INTEGER: Final = 2**63 - 1
# The precision of `multipleOf` that llguidance can express.
_MIN_STEP: Final = 1e-9
_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
# What other languages call these types.
_TYPE_ALIASES: Final[Mapping[str, str]] = {
    "str": "string", "text": "string", "int": "integer", "int32": "integer", "int64": "integer",
    "long": "integer", "float": "number", "double": "number", "decimal": "number",
    "bool": "boolean", "none": "null", "list": "array", "dict": "object", "map": "object",
}  # fmt: skip
# Formats that llguidance knows. Any other says nothing that a grammar could check.
_FORMATS: Final = frozenset(
    {
        "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid",
        "uri", "unknown",
    }
)  # fmt: skip
# Keywords that restrict values in a way that a grammar cannot express, with the values by which
# they ask for nothing.
_NOT_EXPRESSIBLE: Final[Mapping[str, tuple[Any, ...]]] = {
    "not": (False,), "if": ({}, True), "uniqueItems": (False,), "contains": ({}, True),
    "propertyNames": ({}, True), "dependentRequired": ({},), "dependentSchemas": ({},),
    "dependencies": ({},), "unevaluatedProperties": (False, True, {}),
    "unevaluatedItems": (False, True, {}),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A place at which the schema is not enforced as the client wrote it.

    Attributes:
        place: the names of the properties that lead there, joined by dots; "" for the whole schema.
        cause: what cannot be enforced there. It names keywords, never values.
    """

    place: str
    cause: str


def well_formed(schema: Any, *, max_values: int) -> tuple[dict[str, Any], list[Problem]]:
    """The schema in the form that the module's docstring describes, and where it is looser.

    Args:
        max_values: enumerations of more values are not enforced.
    """
    reader = _SchemaReader(schema, max_values)
    found = reader.schema(schema, "", 0, frozenset())
    if reader.definitions:
        found["$defs"] = reader.definitions
    return found, reader.problems


class _SchemaReader:
    """Reads one document."""

    def __init__(self, root: Any, max_values: int) -> None:
        self._root = root
        self._max_values = max_values
        self.definitions: dict[str, Any] = {}
        self.problems: list[Problem] = []
        # The name of the definition for each reference.
        self._names: dict[str, str] = {}

    def schema(
        self,
        schema: Any,
        place: str,
        depth: int,
        inside: frozenset[str],
        *,
        is_part: bool = False,
    ) -> dict[str, Any]:
        """One schema.

        Args:
            inside: the definitions that contain this schema in all of their values.
            is_part: whether it is one part of a combination.
        """
        if schema is True or schema is None:
            return {}
        if not isinstance(schema, Mapping):
            cause = "false" if schema is False else f"{_kind(schema)} in place of a schema"
            return self._left_out(place, cause)
        if depth > _MAX_DEPTH:
            return self._left_out(place, f"more than {_MAX_DEPTH} levels")
        node = _Node(schema, place, self._report)
        result = node.scalars()
        if len(result.get("enum", ())) > self._max_values:
            node.report(f"enum has more than {self._max_values} values")
            result = {"type": sorted({type_of(value) for value in result["enum"]})}
        result |= self._children(node, depth + 1, inside)
        result |= self._reference(node, inside, is_part=is_part or bool(result))
        if not is_part and not result.keys() & {"type", "enum", "$ref", "allOf", "anyOf"}:
            # A schema without a type allows any value of other types. Clients do not mean that.
            implied = types_of(result)
            result |= {"type": min(implied)} if len(implied) == 1 else {}
        return _consistent(result, node.report)

    def _left_out(self, place: str, cause: str) -> dict[str, Any]:
        self._report(place, cause)
        return {}

    def _report(self, place: str, cause: str) -> None:
        problem = Problem(place, cause)
        if problem not in self.problems:
            self.problems.append(problem)

    def _children(self, node: "_Node", depth: int, inside: frozenset[str]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        required = node.strings("required")
        if required:
            result["required"] = required
        properties = node.mapping("properties")
        if properties is not None:
            result["properties"] = {
                name: self.schema(
                    inner, node.at(name), depth, inside if name in required else frozenset()
                )
                for name, inner in properties.items()
            }
        # A condition is not enforced, but the arguments that it adds may be written.
        dependent = as_mapping(node.get("dependentSchemas"))
        for branch in (node.get("then"), node.get("else"), *dependent.values()):
            for name, inner in as_mapping(as_mapping(branch).get("properties")).items():
                listed = result.setdefault("properties", {})
                if name not in listed:
                    listed[name] = self.schema(inner, node.at(name), depth, frozenset())
        if patterns := node.mapping("patternProperties"):
            result["patternProperties"] = {
                pattern: self.schema(inner, node.place, depth, frozenset())
                for pattern, inner in patterns.items()
            }
        if (additional := node.get("additionalProperties")) is not None:
            result["additionalProperties"] = self._boolean_or_schema(additional, node, depth)
        result |= self._items(node, depth, inside)
        for key in ("allOf", "anyOf", "oneOf"):
            inner = inside if key == "allOf" else frozenset()
            part = key == "allOf" or "properties" in result or "allOf" in result
            options = [
                self.schema(option, node.place, depth, inner, is_part=part)
                for option in node.sequence(key)
            ]
            if options:
                result["anyOf" if key == "oneOf" and "anyOf" not in result else key] = options
                if key == "oneOf" and self._may_overlap(options):
                    node.report("oneOf is enforced as anyOf")
        if "oneOf" in result:
            # Both anyOf and oneOf: each must hold.
            result["allOf"] = [*result.get("allOf", ()), {"anyOf": result.pop("oneOf")}]
        return result

    def _may_overlap(self, options: list[dict[str, Any]]) -> bool:
        """Whether one value may fit several of the schemas."""
        names = [definition_name(str(option.get("$ref", ""))) for option in options]
        found = [
            self.definitions.get(name, option) if option.keys() == {"$ref"} else option
            for name, option in zip(names, options, strict=True)
        ]
        return not all(are_disjoint(one, other) for one, other in combinations(found, 2))

    def _boolean_or_schema(self, schema: Any, node: "_Node", depth: int) -> Any:
        if isinstance(schema, bool):
            return schema
        return self.schema(schema, node.place, depth, frozenset())

    def _items(self, node: "_Node", depth: int, inside: frozenset[str]) -> dict[str, Any]:
        first, rest = node.get("prefixItems"), node.get("items")
        if isinstance(rest, list):
            # Earlier drafts name the first elements so.
            first, rest = rest, node.get("additionalItems")
        result: dict[str, Any] = {}
        needed = inside if node.count("minItems") else frozenset()
        if isinstance(first, list) and first:
            result["prefixItems"] = [self.schema(o, node.place, depth, needed) for o in first]
        elif first not in (None, []):
            node.report("prefixItems has the wrong type")
        if rest is False:
            result["items"] = False
        elif rest is not None:
            result["items"] = self.schema(rest, node.place, depth, needed)
        return result

    # References

    def _reference(self, node: "_Node", inside: frozenset[str], *, is_part: bool) -> dict[str, Any]:
        reference = node.get("$ref") or node.get("$recursiveRef") or node.get("$dynamicRef")
        if reference is None:
            return {}
        if not isinstance(reference, str):
            node.report("$ref has the wrong type")
            return {}
        target, canonical = self._followed(reference)
        if canonical is None:
            node.report("$ref leads nowhere")
            return {}
        name = self._names.setdefault(canonical, f"d{len(self._names)}") + OPEN * is_part
        if name not in self.definitions:
            # The entry exists before its content, since that may contain the same reference.
            self.definitions[name] = {}
            self.definitions[name] = self.schema(target, node.place, 1, inside | {name})
        elif name in inside:
            node.report("a value that contains itself without end")
            return {}
        return {"$ref": f"#/$defs/{name}"}

    def _followed(self, reference: str) -> tuple[Any, str | None]:
        """The schema behind a reference and the reference to it; (None, None) if there is none."""
        seen: set[str] = set()
        while reference not in seen:
            seen.add(reference)
            found = self._target(reference)
            if not isinstance(found, Mapping | bool):
                return None, None
            keywords = as_mapping(found)
            only = keywords.keys() - {"description", "title"}
            if only != {"$ref"} or not isinstance(keywords["$ref"], str):
                return found, reference
            reference = keywords["$ref"]
        return None, None

    def _target(self, reference: str) -> Any:
        document, _, fragment = reference.partition("#")
        own = self._root.get("$id") if isinstance(self._root, Mapping) else None
        if document and document != own:
            return None
        if fragment and not fragment.startswith("/"):
            return _anchored(self._root, fragment)
        found = self._root
        for part in fragment.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping):
                found = found.get(name)
            else:
                return None
        return found


class _Node:
    """One schema that is a mapping, and its keywords by type."""

    def __init__(self, schema: Schema, place: str, report: Callable[[str, str], None]) -> None:
        self._schema = schema
        self.place = place
        self._report = report

    def report(self, cause: str) -> None:
        self._report(self.place, cause)

    def at(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name

    def get(self, key: str) -> Any:
        return self._schema.get(key)

    def mapping(self, key: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._of_type(key, Mapping)
        return found

    def sequence(self, key: str) -> list[Any]:
        return self._of_type(key, list) or []

    def strings(self, key: str) -> list[str]:
        found = self._schema.get(key)
        if isinstance(found, bool):
            # An early draft says so of the property itself.
            return []
        names = [name for name in self.sequence(key) if isinstance(name, str)]
        return list(dict.fromkeys(names))

    def count(self, key: str) -> int | None:
        found = self._schema.get(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or found != found // 1:
            self.report(f"{key} has the wrong type")
            return None
        if not 0 <= found <= _MAX_LENGTH:
            self.report(f"{key} is out of range")
            return None
        return int(found)

    def number(self, key: str) -> float | None:
        found = self._schema.get(key)
        if found is None or isinstance(found, bool):
            return None
        if not isinstance(found, int | float) or not math.isfinite(found):
            self.report(f"{key} has the wrong type")
            return None
        if abs(found) > _MAX_INTEGER:
            # A bound beyond all practical values asks for nothing, unless nothing would fit it.
            if ("min" in key.lower()) == (found > 0):
                self.report(f"{key} is out of range")
            return None
        return found

    def _of_type(self, key: str, kind: type[Any]) -> Any:
        found = self._schema.get(key)
        if isinstance(found, kind):
            return found
        if found is not None:
            self.report(f"{key} has the wrong type")
        return None

    def scalars(self) -> dict[str, Any]:
        """The keywords that contain no other schema."""
        result = self._type() | self._values() | self._numeric()
        for key in ("minLength", "maxLength", "minItems", "maxItems"):
            if (found := self.count(key)) is not None:
                result[key] = found
        for key in ("minProperties", "maxProperties"):
            if self.count(key):
                self.report(key)
        if pattern := self._of_type("pattern", str):
            result["pattern"] = pattern
        if self.get("format") in _FORMATS:
            result["format"] = self.get("format")
        for key, free in _NOT_EXPRESSIBLE.items():
            if self.get(key) is not None and self.get(key) not in free:
                self.report(key)
        return result

    def _type(self) -> dict[str, Any]:
        declared = self.get("type")
        given = declared if isinstance(declared, list) else [declared]
        lower = [str(name).lower() for name in given if name is not None]
        names = list(dict.fromkeys(_TYPE_ALIASES.get(name, name) for name in lower))
        known = [name for name in names if name in _TYPES]
        if len(known) < len(names):
            self.report("type is unknown")
            return {}
        if self.get("nullable") is True and known and "null" not in known:
            known.append("null")
        if not known:
            return {}
        return {"type": known if isinstance(declared, list) or len(known) > 1 else known[0]}

    def _values(self) -> dict[str, Any]:
        if "const" in self._schema:
            return {"enum": [_integral(self._schema["const"])]}
        values = [_integral(value) for value in self.sequence("enum") if _is_finite(value)]
        if self.get("enum") == []:
            self.report("enum is empty")
        if not values:
            return {}
        if self.get("nullable") is True and None not in values:
            values = [*values, None]
        return {"enum": values}

    def _numeric(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, exclusive in (
            ("minimum", "exclusiveMinimum"),
            ("maximum", "exclusiveMaximum"),
        ):
            bound = self.number(key)
            if self.get(exclusive) is True:
                # Draft 4 says by a boolean that the bound is exclusive.
                key, bound = exclusive, bound
            elif (outer := self.number(exclusive)) is not None:
                result[exclusive] = outer
            if bound is not None:
                result[key] = bound
        step = self.number("multipleOf")
        if step is not None and step >= _MIN_STEP:
            result["multipleOf"] = step
        elif step is not None:
            self.report("multipleOf is out of range")
        return result


def _consistent(schema: dict[str, Any], report: Callable[[str], None]) -> dict[str, Any]:
    """The schema without keywords that contradict one another."""
    for least, most in (
        ("minLength", "maxLength"), ("minItems", "maxItems"), ("minimum", "maximum"),
        ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum"),
        ("exclusiveMinimum", "exclusiveMaximum"),
    ):  # fmt: skip
        if least in schema and most in schema and schema[least] > schema[most]:
            report(f"{least} is above {most}")
            del schema[least], schema[most]
    if "enum" in schema and (types := schema.get("type")):
        names = {types} if isinstance(types, str) else set(types)
        if not any(_has_type(value, names) for value in schema["enum"]):
            report("enum contradicts type")
            del schema["type"]
    return schema


def _has_type(value: Any, names: Iterable[str]) -> bool:
    kind = type_of(value)
    return kind in names or (kind in ("integer", "number") and bool({"number"} & set(names)))


def _integral(value: Any) -> Any:
    """A number as an integer if it is one, since 1.0 is written as 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_finite(value: Any) -> bool:
    """Whether a value can be written as JSON."""
    return not isinstance(value, float) or math.isfinite(value)


def _anchored(schema: Any, name: str) -> Any:
    """The schema that has this anchor."""
    return next(
        (
            part
            for part in parts_of(schema, {})
            if name in (part.get("$anchor"), part.get("$dynamicAnchor"))
        ),
        None,
    )


def _kind(value: Any) -> str:
    return f"a value of type {type_of(value)}"
