"""The grammar rules of a tool call, in every notation."""

from collections.abc import Sequence

from anyclaude.mlx.decode.bare_keys import escaped
from anyclaude.mlx.decode.constraint.bare_keys import BareKeyRules
from anyclaude.mlx.decode.constraint.lark import Lark, quoted
from anyclaude.mlx.decode.constraint.parameters import Choice, Form, Json, Parameter, Plain
from anyclaude.mlx.decode.constraint.schemas import Schema
from anyclaude.mlx.decode.notations import (
    BareKeyNotation,
    JsonNotation,
    Notation,
    TaggedNotation,
)


def call_rule(
    lark: Lark,
    notation: Notation,
    name: str,
    schema: Schema,
    parameters: Sequence[Parameter] | None,
) -> str:
    """The rule for one tool's call, from its name to the end of its arguments.

    Args:
        parameters: the arguments, for a tagged notation; None if they are written as one JSON
            object.
    """
    match notation:
        case BareKeyNotation():
            arguments = BareKeyRules(lark, notation.quote, schema).rule()
            return lark.rule(f"{lark.literal(name)} {arguments}")
        case JsonNotation():
            head = lark.literal(escaped(name))
            between = lark.parts(notation.before_arguments)
            return lark.rule(f"{head} {between} {lark.json(schema)}")
    head = f"{lark.literal(name)} {lark.parts(notation.after_name)}"
    if parameters is None:
        return lark.rule(f"{head} {lark.json(schema)} {lark.literal(notation.after_arguments)}")
    return lark.rule(f"{head} {_TaggedRules(lark, notation, parameters).rule()}")


def any_call_rule(lark: Lark, notation: Notation, calls: Sequence[str]) -> str:
    """The rule for one of `calls`, with the texts that surround every call."""
    after = lark.literal(notation.after_arguments) if isinstance(notation, JsonNotation) else ""
    return lark.rule(f"{lark.literal(notation.before_name)} ({' | '.join(calls)}) {after}")


class _TaggedRules:
    """The rules for the arguments of one tool, in the order of its schema."""

    def __init__(
        self, lark: Lark, notation: TaggedNotation, parameters: Sequence[Parameter]
    ) -> None:
        self._lark = lark
        self._notation = notation
        self._parameters = parameters
        self._from: dict[int, str] = {}

    def rule(self) -> str:
        options = []
        if self._parameters:
            options.append(f"{self._lark.literal(self._notation.before_key)} {self._key_from(0)}")
        if self._may_end(0):
            options.append(self._lark.literal(self._notation.after_arguments) or '""')
        return self._lark.alternatives(options)

    def _may_end(self, at: int) -> bool:
        return not any(parameter.required for parameter in self._parameters[at:])

    def _key_from(self, at: int) -> str:
        """The rule for one of the arguments from index `at` on, and all that follow it."""
        if at not in self._from:
            options = []
            for index in range(at, len(self._parameters)):
                options.append(self._argument(index))
                if self._parameters[index].required:
                    break
            self._from[at] = self._lark.alternatives(options)
        return self._from[at]

    def _argument(self, index: int) -> str:
        parameter = self._parameters[index]
        after_key = self._notation.after_key.replace("{type}", parameter.type_name)
        head = f"{self._lark.literal(parameter.name)} {self._lark.literal(after_key)}"
        values = [self._value(form, index + 1) for form in parameter.forms]
        return f"{head} ({' | '.join(values)})"

    def _value(self, form: Form, following: int) -> str:
        match form:
            case Plain():
                return self._plain(form, following)
            case Json(schema):
                return f"{self._lark.json(schema)} {self._then_closed(following)}"
            case Choice(values):
                options = self._lark.alternatives(
                    self._lark.literal(text) or '""' for text in values
                )
                return f"{options} {self._then_closed(following)}"

    def _then_closed(self, following: int) -> str:
        return f"{self._lark.literal(self._notation.after_value)} {self._continued(following)}"

    def _continued(self, following: int) -> str:
        options = []
        if following < len(self._parameters):
            begin = self._lark.literal(self._notation.separator + self._notation.before_key)
            options.append(f"{begin} {self._key_from(following)}")
        if self._may_end(following):
            options.append(self._lark.literal(self._notation.after_arguments) or '""')
        return self._lark.alternatives(options)

    def _plain(self, form: Plain, following: int) -> str:
        if marker := self._lark.first_marker(self._notation.after_value):
            # A token ends the text, so its characters must not occur in the text: the reader could
            # not tell them from the token.
            text = self._lark.terminal(form.constraints, without=marker)
            return f"{text}{'?' * form.may_be_empty} {self._then_closed(following)}"
        text = self._lark.terminal(form.constraints)
        return f"({' | '.join(self._ended(text, following))})"

    def _ended(self, text: str, following: int) -> list[str]:
        """The text and what ends it.

        A closing tag ends the text only together with what must follow the tag, so that a file
        which contains such a tag can be written.
        """
        lark, after = self._lark, self._notation.after_value
        end, begin = endings(self._notation)
        if not end:
            return [f"{lark.rule(text, f'[suffix={quoted(after)}]')} {self._continued(following)}"]
        options = []
        if following < len(self._parameters):
            value = lark.rule(text, f"[suffix={quoted(begin)}]")
            options.append(f"{value} {self._key_from(following)}")
        if self._may_end(following):
            options.append(lark.rule(text, f"[suffix={quoted(end)}]"))
        return options


def endings(notation: TaggedNotation) -> tuple[str, str]:
    """The texts that end a plain value: as the last argument, and with an argument after it.

    Both are empty if one of them begins with the other, so that they cannot be told apart.
    """
    end = notation.after_value + notation.after_arguments
    begin = notation.after_value + notation.separator + notation.before_key
    if end.startswith(begin) or begin.startswith(end):
        return "", ""
    return end, begin
