"""Descriptions of tools that a chat template can print.

Some templates translate the types of parameters to words of their own. One that meets a type which
it does not know, such as null, may fail or never end: Hermes looks for the parts of the text "null"
without end. The description of such a tool is simplified for that template. What the model may
write is still decided by the schema that the client sent.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

Tool = Mapping[str, Any]
_KNOWN_TYPES: Final = ("string", "number", "integer", "boolean", "array", "object")


def describable(tools: Sequence[Tool], prints: Callable[[Sequence[Tool]], bool]) -> list[Tool]:
    """The tools, simplified where `prints` says that the template cannot print them."""
    if not tools or prints(tools):
        return list(tools)
    chosen = [next(filter(lambda one: prints([one]), _variants(tool)), tool) for tool in tools]
    if changed := [
        old["function"]["name"] for old, new in zip(tools, chosen, strict=True) if old is not new
    ]:
        log.warning("the template cannot print some tools; they are simplified", tools=changed)
    return chosen


def _variants(tool: Tool) -> Iterator[Tool]:
    """The tool, with known types only, and with its schema as a part of its description."""
    function = tool["function"]
    yield tool
    yield {**tool, "function": {**function, "parameters": _known_types(function["parameters"])}}
    schema = json.dumps(function["parameters"], ensure_ascii=False)
    text = f"{function['description']}\nIts arguments follow this JSON schema: {schema}"
    empty = {"type": "object", "properties": {}}
    yield {**tool, "function": {**function, "description": text, "parameters": empty}}


def _known_types(schema: Any) -> Any:
    """The schema without the types that are not among the usual six."""
    if isinstance(schema, list):
        return [_known_types(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    result = {key: _known_types(value) for key, value in schema.items() if key != "type"}
    if "type" not in schema:
        return result
    kind = schema["type"]
    if isinstance(kind, Mapping):
        # A property that is called "type".
        return {key: _known_types(value) for key, value in schema.items()}
    kinds = [one for one in (kind if isinstance(kind, list) else [kind]) if one in _KNOWN_TYPES]
    if not kinds:
        return result
    return {"type": kinds[0] if len(kinds) == 1 else kinds, **result}
