"""Checks the form of a JSON Schema, so that one that nothing can read is refused where it is wrong.

Only what names the arguments has to be an object. The worker leaves free what else it cannot read,
and what it cannot read within the schema of one argument.
"""

from collections.abc import Mapping
from typing import Any, Final

_BY_NAME: Final = ("properties", "patternProperties", "$defs", "definitions")


def as_object(value: Any) -> Mapping[str, Any]:
    """`value` if it is a JSON object, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


class MalformedError(ValueError):
    """Something at `path` within a field is of the wrong kind; `expected` is a sentence."""

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(f"{path}: {expected}" if path else expected)
        self.path = path
        self.expected = expected


def check_schema(schema: Any, path: str = "") -> None:
    """Returns when the schema of a client names its properties in a form that can be read.

    Raises:
        MalformedError: it does not; `path` is its place.
    """
    if not isinstance(schema, dict):
        return
    for keyword in _BY_NAME:
        named = schema.get(keyword)
        if named is None:
            continue
        place = f"{path}.{keyword}" if path else keyword
        if not isinstance(named, dict):
            raise MalformedError(place, "Input should be an object")
