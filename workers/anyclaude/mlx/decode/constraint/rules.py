"""The grammar rules of a tool call, in every notation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from anyclaude.mlx.decode.bare_keys import escaped
from anyclaude.mlx.decode.constraint.bare_keys import BareKeyRules
from anyclaude.mlx.decode.constraint.lark import Lark, quoted
from anyclaude.mlx.decode.constraint.parameters import (
    ITEM_SEPARATOR,
    KEY_SEPARATOR,
    Choice,
    Form,
    Json,
    Parameter,
    Plain,
)
from anyclaude.mlx.decode.constraint.schemas import Schema
from anyclaude.mlx.decode.notations import (
    BareKeyNotation,
    JsonNotation,
    Notation,
    TaggedNotation,
)

# A set has 64 bits, but its conditions cannot count to 64.
_BITS: Final = 63
# The members of a JSON object, in the form of arguments that stand between texts of their own.
_JSON_MEMBERS: Final = TaggedNotation(
    before_name="",
    after_name=(),
    before_key='"',
    after_key='"' + KEY_SEPARATOR,
    after_value="",
    after_arguments="}",
    separator=ITEM_SEPARATOR,
    plain_strings=False,
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
        parameters: the arguments; None if they can only be described together, as one JSON
            object whose keys are in the order of the schema.
    """
    match notation:
        case BareKeyNotation():
            arguments = BareKeyRules(lark, notation.quote, schema).rule()
            return lark.rule(f"{lark.literal(name)} {arguments}")
        case JsonNotation():
            head = lark.literal(escaped(name))
            between = lark.parts(notation.before_arguments)
            return lark.rule(f"{head} {between} {_json_arguments(lark, schema, parameters)}")
    head = f"{lark.literal(name)} {lark.parts(notation.after_name)}"
    if parameters is None:
        return lark.rule(f"{head} {lark.json(schema)} {lark.literal(notation.after_arguments)}")
    return lark.rule(f"{head} {_ArgumentRules(lark, notation, parameters).rule()}")


def any_call_rule(lark: Lark, notation: Notation, calls: Sequence[str]) -> str:
    """The rule for one of `calls`, with the texts that surround every call."""
    after = lark.parts(notation.after_arguments) if isinstance(notation, JsonNotation) else ""
    return lark.rule(f"{lark.literal(notation.before_name)} ({' | '.join(calls)}) {after}")


def _json_arguments(lark: Lark, schema: Schema, parameters: Sequence[Parameter] | None) -> str:
    """The rule for a JSON object of arguments, in any order if they are known one by one.

    llguidance fixes the order of an object's keys, so the members are written as rules of our own.
    """
    if parameters is None:
        return lark.json(schema)
    named = [replace(parameter, name=escaped(parameter.name)) for parameter in parameters]
    return f'"{{" {_ArgumentRules(lark, _JSON_MEMBERS, named).rule()}'


class _ArgumentRules:
    """The rules for the arguments of one tool, in any order.

    A set of bits says which arguments were written. Each argument whose bit is clear may come next,
    and the call may end when the bits of all required arguments are set, so the grammar grows with
    the number of arguments and not with the number of orders. A set has 63 bits: more arguments
    come in groups, the required ones first, and each group in any order.
    """

    def __init__(
        self, lark: Lark, notation: TaggedNotation, parameters: Sequence[Parameter]
    ) -> None:
        self._lark = lark
        self._notation = notation
        ordered = sorted(parameters, key=lambda parameter: not parameter.required)
        groups = [ordered[at : at + _BITS] for at in range(0, len(ordered), _BITS)]
        following: str | None = None
        needed = False
        for group in reversed(groups):
            following = _Group(lark, notation, group, following, may_end=not needed).keys
            needed = needed or any(parameter.required for parameter in group)
        self._keys, self._may_end = following, not needed

    def rule(self) -> str:
        options = []
        if self._keys is not None:
            options.append(f"{self._lark.literal(self._notation.before_key)} {self._keys}::0x0")
        if self._may_end:
            options.append(self._lark.literal(self._notation.after_arguments) or '""')
        return self._lark.alternatives(options)


class _Group:
    """The rules for up to 63 arguments in any order, and for what follows them.

    Args:
        following: the rule for the keys of the next group, if there is one.
        may_end: whether the call may end without an argument of a later group.
    """

    def __init__(
        self,
        lark: Lark,
        notation: TaggedNotation,
        parameters: Sequence[Parameter],
        following: str | None,
        *,
        may_end: bool,
    ) -> None:
        self._lark = lark
        self._notation = notation
        self._following = following
        self._may_end = may_end
        self._is_open = f"bit_count_lt(_, {len(parameters)})"
        required = sum(parameter.required for parameter in parameters)
        self._is_complete = f"is_ones([0:{required}])" if required else ""
        self._plain: dict[Plain, str] = {}
        # The rule for the key of one argument that is still open, and all that follows it.
        self.keys = lark.declare()
        self._closed = lark.declare()
        self._define_closed()
        lark.define_with_bits(
            self.keys,
            [
                (f"{self._head(parameter)} {self._value(form, bit)}", f"bit_clear({bit})")
                for bit, parameter in enumerate(parameters)
                for form in parameter.forms
            ],
        )

    def _head(self, parameter: Parameter) -> str:
        after_key = self._notation.after_key.replace("{type}", parameter.type_name)
        return f"{self._lark.literal(parameter.name)} {self._lark.literal(after_key)}"

    def _value(self, form: Form, bit: int) -> str:
        match form:
            case Plain():
                return self._plain_value(form, bit)
            case Json(schema):
                return f"{self._lark.json(schema)} {self._closed}::set_bit({bit})"
            case Choice(values):
                options = self._lark.alternatives(
                    self._lark.literal(text) or '""' for text in values
                )
                return f"{options} {self._closed}::set_bit({bit})"

    def _define_closed(self) -> None:
        """Defines the rule for the closing tag of a value, and all that follows it."""
        lark, notation = self._lark, self._notation
        after = lark.literal(notation.after_value)
        begin = lark.literal(notation.separator + notation.before_key)
        end = lark.literal(notation.after_arguments)
        options = self._continued(f"{after} {begin}", f"{after} {end}")
        lark.define_with_bits(self._closed, options)

    def _continued(self, begin: str, end: str) -> list[tuple[str, str]]:
        """What may follow a value, each with its condition.

        Args:
            begin: the items that come before the next key.
            end: the items that end the call.
        """
        options = [(f"{begin} {self.keys}::_", self._is_open)]
        if self._following is not None:
            options.append((f"{begin} {self._following}::0x0", self._is_complete))
        if self._may_end:
            options.append((end if end.strip() else '""', self._is_complete))
        return options

    def _plain_value(self, form: Plain, bit: int) -> str:
        lark, after = self._lark, self._notation.after_value
        if marker := lark.first_marker(after):
            # A token ends the text, so its characters must not occur in the text: the reader could
            # not tell them from the token.
            text = lark.terminal(form.constraints, without=marker)
            return f"{text}{'?' * form.may_be_empty} {self._closed}::set_bit({bit})"
        if form not in self._plain:
            self._plain[form] = lark.declare()
            self._define_plain(self._plain[form], lark.terminal(form.constraints))
        return f"{self._plain[form]}::set_bit({bit})"

    def _define_plain(self, name: str, text: str) -> None:
        """Defines the rule for a text and what ends it.

        A closing tag ends the text only together with what must follow the tag, so that a file
        which contains such a tag can be written.
        """
        lark, notation = self._lark, self._notation
        end, begin = endings(notation)
        if end:
            options = self._continued(
                lark.rule(text, f"[suffix={quoted(begin)}]"),
                lark.rule(text, f"[suffix={quoted(end)}]"),
            )
        else:
            value = lark.rule(text, f"[suffix={quoted(notation.after_value)}]")
            next_key = lark.literal(notation.separator + notation.before_key)
            last = lark.literal(notation.after_arguments)
            options = self._continued(f"{value} {next_key}", f"{value} {last}")
        lark.define_with_bits(name, options)


def endings(notation: TaggedNotation) -> tuple[str, str]:
    """The texts that end a plain value: as the last argument, and with an argument after it.

    Both are empty if one of them begins with the other, so that they cannot be told apart.
    """
    end = notation.after_value + notation.after_arguments
    begin = notation.after_value + notation.separator + notation.before_key
    if end.startswith(begin) or begin.startswith(end):
        return "", ""
    return end, begin
