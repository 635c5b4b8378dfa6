"""Finds the strictest form of a tool's schema that a grammar can express.

What cannot be enforced is loosened for that argument only (`loosening.py`). The other arguments and
the other tools are not affected. Each such place is a `Problem`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

from anyclaude.messages.requests import Tool
from anyclaude.mlx.decode.constraint.grammars import Grammars
from anyclaude.mlx.decode.constraint.lark import Lark
from anyclaude.mlx.decode.constraint.loosening import loosened
from anyclaude.mlx.decode.constraint.parameters import Parameter, is_ambiguous, parameters
from anyclaude.mlx.decode.constraint.reader import ReadableTool
from anyclaude.mlx.decode.constraint.rules import call_rule
from anyclaude.mlx.decode.constraint.schemas import (
    COMBINERS,
    CONDITIONS,
    NotExpressibleError,
    Schema,
    arguments_schema,
    flattened,
    without,
)
from anyclaude.mlx.decode.constraint.values import JsonValues, is_bare
from anyclaude.mlx.decode.constraint.wellformed import Problem, well_formed
from anyclaude.mlx.decode.notation import BareKeyNotation, Notation, TaggedNotation

FREE_OBJECT: Final[Schema] = {"type": "object"}


@dataclass(frozen=True)
class CompiledTool:
    """A tool, and a schema of its arguments that a grammar can express."""

    source: Tool
    schema: Schema
    parameters: list[Parameter]
    readable: ReadableTool
    problems: tuple[Problem, ...]
    # Differs if name or schema differ.
    key: str


class ToolCompiler:
    """Prepares the tools of one notation."""

    def __init__(self, grammars: Grammars, notation: Notation) -> None:
        self._grammars = grammars
        self._notation = notation

    def compiled(self, tool: Tool, *, verify: bool) -> CompiledTool:
        """A tool whose rules can be written.

        Args:
            verify: whether to try each argument, and not only those that often fail. It takes a
                few milliseconds for each.
        """
        try:
            schema, problems = well_formed(
                tool.input_schema, max_values=self._grammars.max_enum_values
            )
            return self._strictest(tool, arguments_schema(schema), problems, verify=verify)
        except (RecursionError, ValueError, TypeError, LookupError, AttributeError) as error:
            # A kind of schema that is not foreseen here must not end the request.
            return self.free(tool, f"unexpected {type(error).__name__}")

    def free(self, tool: Tool, cause: str) -> CompiledTool:
        """The tool with any object as its arguments."""
        return self._tool(tool, FREE_OBJECT, [Problem("", f"nothing enforced: {cause}")])

    def rule(self, tool: CompiledTool, lark: Lark) -> str:
        """The rule for calls of one tool.

        Raises:
            NotExpressibleError: the notation cannot express the schema.
        """
        return call_rule(lark, self._notation, tool.source.name, tool.schema, tool.parameters)

    def _strictest(
        self, tool: Tool, schema: dict[str, Any], problems: list[Problem], *, verify: bool
    ) -> CompiledTool:
        if any(key in schema for key in CONDITIONS):
            if not isinstance(self._notation, TaggedNotation) and not self._failure(tool, schema):
                return self._tool(tool, schema, problems)
            if any(key in schema for key in COMBINERS):
                cause = "which arguments belong together is not enforced"
                problems = [*problems, Problem("", cause)]
            schema = flattened(schema)
        if isinstance(self._notation, BareKeyNotation):
            schema, problems = _writable(schema, problems)
        failure = partial(self._failure, tool)
        found = self._tool(tool, *loosened(schema, problems, failure, verify=verify))
        try:
            self.rule(found, self._grammars.new())
        except NotExpressibleError:
            found = self._tool(tool, *loosened(schema, problems, failure, verify=True))
        if verify and (cause := self._failure(tool, found.schema)):
            return self.free(tool, cause)
        return found

    def _failure(self, tool: Tool, schema: Schema) -> str:
        """Why a grammar cannot enforce a schema; empty if it can."""
        lark = self._grammars.new()
        try:
            rule = self.rule(self._tool(tool, schema, ()), lark)
        except NotExpressibleError as error:
            return str(error)
        return self._grammars.failure(lark.text(rule))

    def _tool(self, tool: Tool, schema: Schema, problems: Sequence[Problem]) -> CompiledTool:
        known = self._parameters(schema)
        checks = {p.name: self._check(p.schema) for p in known if is_ambiguous(p)}
        readable = ReadableTool(tool.name, known, checks)
        key = hashlib.sha256(json.dumps([tool.name, schema]).encode()).hexdigest()
        return CompiledTool(tool, schema, known, readable, tuple(problems), key)

    def _parameters(self, schema: Schema) -> list[Parameter]:
        match self._notation:
            case TaggedNotation(plain_strings=plain_strings, marks_strings=marks_strings):
                return parameters(
                    schema,
                    plain_strings=plain_strings,
                    python_words=True,
                    marked_strings=marks_strings,
                )
        # The other notations are read without knowing the arguments.
        return []

    def _check(self, schema: Schema) -> Callable[[str], bool]:
        """A function that says whether a JSON text fits `schema`; it is compiled when needed."""

        @cache
        def matcher() -> Any:
            lark = self._grammars.new()
            return self._grammars.matcher(lark.text(JsonValues(lark, schema).rule(schema)))

        def accepts(text: str) -> bool:
            compiled = matcher()
            return isinstance(compiled, str) or self._grammars.accepts(compiled, text)

        return accepts


def _writable(
    schema: dict[str, Any], problems: list[Problem]
) -> tuple[dict[str, Any], list[Problem]]:
    """The schema without the properties whose names cannot be written without quotes."""
    unwritable = [name for name in schema.get("properties", {}) if not is_bare(name)]
    if not unwritable:
        return schema, problems
    required = [name for name in schema.get("required", ()) if name not in unwritable]
    rest = {**schema, "required": required, "additionalProperties": {}}
    rest["properties"] = without(schema["properties"], *unwritable)
    cause = "the notation cannot write this name"
    return rest, [*problems, *(Problem(name, cause) for name in unwritable)]
