"""The grammar rules of arguments, or of an object's members, in any order.

llguidance fixes the order of an object's keys. Models write them in any order, and a grammar that
forbids it makes them leave out what they would have written later.

A set of bits says which arguments were written. Each argument whose bit is clear may come next, and
the end is allowed when the bits of all required arguments are set, so the grammar grows with the
number of arguments and not with the number of orders. A set has 63 bits. If there are more
arguments, only required ones have bits, in groups of 63 that come one after the other. Arguments
without a bit, and those that the schema does not list, may come anywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from anyclaude.mlx.decode.bare_keys import escaped
from anyclaude.mlx.decode.constraint.lark import ANY_TEXT, Lark, quoted
from anyclaude.mlx.decode.constraint.parameters import (
    ITEM_SEPARATOR,
    KEY_SEPARATOR,
    Choice,
    Form,
    Json,
    Parameter,
    Plain,
    for_strings,
)
from anyclaude.mlx.decode.constraint.schemas import Schema
from anyclaude.mlx.decode.notation import TaggedNotation

# A set has 64 bits, but its conditions cannot count to 64.
_BITS: Final = 63
# The members of a JSON object, in the form of arguments that stand between texts of their own.
JSON_MEMBERS: Final = TaggedNotation(
    before_name="",
    after_name=(),
    before_key='"',
    after_key='"' + KEY_SEPARATOR,
    after_value="",
    after_arguments="}",
    separator=ITEM_SEPARATOR,
    plain_strings=False,
)
# The names that arguments outside the schema may have: in a JSON string without escapes, and
# between the tags of any notation.
_JSON_NAME: Final = r'[^"\\\x00-\x1f]+'
TAGGED_NAME: Final = r'[^\s<>"=:,|(){}\[\]]+'


class MemberRules:
    """The rules for one object's members.

    Args:
        json: makes the rule for a value in the form that `Json` stands for.
        name: a regular expression for the names of members that the schema does not list.
    """

    def __init__(
        self,
        lark: Lark,
        notation: TaggedNotation,
        parameters: Sequence[Parameter],
        json: Callable[[Schema], str],
        name: str = TAGGED_NAME,
    ) -> None:
        self._lark = lark
        self._notation = notation
        listed = [parameter for parameter in parameters if not parameter.unlisted]
        tracked = sorted(listed, key=lambda parameter: not parameter.required)
        if len(tracked) > _BITS:
            tracked = [parameter for parameter in tracked if parameter.required]
        others = [parameter for parameter in parameters if parameter not in tracked]
        groups = [tracked[at : at + _BITS] for at in range(0, len(tracked), _BITS)]
        if others and not groups:
            groups = [[]]
        following: str | None = None
        needed = False
        for group in reversed(groups):
            following = _Group(
                lark, notation, group, others, following, json, name, may_end=not needed
            ).keys
            needed = needed or any(parameter.required for parameter in group)
        self._keys, self._may_end = following, not needed

    def rule(self) -> str:
        options = []
        if self._keys is not None:
            options.append(f"{self._lark.literal(self._notation.before_key)} {self._keys}::0x0")
        if self._may_end:
            options.append(self._lark.literal(self._notation.after_arguments) or '""')
        return self._lark.alternatives(options)


def json_object(lark: Lark, parameters: Sequence[Parameter], json: Callable[[Schema], str]) -> str:
    """The rule for a JSON object."""
    named = [replace(parameter, name=escaped(parameter.name)) for parameter in parameters]
    return f'"{{" {MemberRules(lark, JSON_MEMBERS, named, json, _JSON_NAME).rule()}'


class _Group:
    """The rules for up to 63 arguments in any order, and for what follows them.

    Args:
        others: the arguments that have no bits.
        following: the rule for the keys of the next group, if there is one.
        may_end: whether the call may end without an argument of a later group.
    """

    def __init__(
        self,
        lark: Lark,
        notation: TaggedNotation,
        parameters: Sequence[Parameter],
        others: Sequence[Parameter],
        following: str | None,
        json: Callable[[Schema], str],
        name: str,
        *,
        may_end: bool,
    ) -> None:
        self._lark = lark
        self._notation = notation
        self._following = following
        self._may_end = may_end
        self._json = json
        self._name = name
        self._is_open = "" if others else f"bit_count_lt(_, {len(parameters)})"
        required = sum(parameter.required for parameter in parameters)
        self._is_complete = f"is_ones([0:{required}])" if required else ""
        self._is_incomplete = f"bit_count_lt([0:{required}], {required})" if required else ""
        self._plain: dict[Plain, str] = {}
        self._closed_in_tag: str | None = None
        # The rule for the key of one argument that is still open, and all that follows it.
        self.keys = lark.declare()
        self._closed = lark.declare()
        self._define_closed(self._closed, notation.after_value)
        options = [
            (
                f"{self._head(parameter, form)} {self._value(form, f'set_bit({bit})')}",
                f"bit_clear({bit})",
            )
            for bit, parameter in enumerate(parameters)
            for form in parameter.forms
        ]
        options += [
            (f"{self._head(parameter, form)} {self._value(form, '_')}", "")
            for parameter in others
            for form in parameter.forms
        ]
        lark.define_with_bits(self.keys, options)

    def _head(self, parameter: Parameter, form: Form) -> str:
        is_string = "true" if for_strings(form) else "false"
        after_key = self._notation.after_key.replace("{type}", parameter.type_name)
        after_key = after_key.replace("{string}", is_string)
        if self._notation is JSON_MEMBERS:
            quote, colon = quoted('"'), self._lark.separator(KEY_SEPARATOR)
            return f"{self._key(parameter)} {quote} {colon}"
        return f"{self._key(parameter)} {self._lark.literal(after_key)}"

    def _key(self, parameter: Parameter) -> str:
        names = parameter.unlisted
        if names is None:
            return self._lark.literal(parameter.name)
        return self._lark.terminal(
            [self._name, *[names.pattern] * bool(names.pattern)],
            other_than=names.other_than,
            but_not=names.but_not,
        )

    def _value(self, form: Form, bits: str) -> str:
        match form:
            case Plain():
                return self._plain_value(form, bits)
            case Json(schema):
                return f"{self._json(schema)} {self._closed}::{bits}"
            case Choice(values):
                options = self._lark.alternatives(
                    self._lark.literal(text) or '""' for text in values
                )
                return f"{options} {self._closed}::{bits}"

    def _define_closed(self, name: str, after_value: str) -> None:
        """Defines the rule for the closing tag of a value, and all that follows it."""
        lark, notation = self._lark, self._notation
        after = lark.literal(after_value)
        begin = lark.literal(notation.separator + notation.before_key)
        if notation is JSON_MEMBERS:
            begin = f"{lark.separator(notation.separator)} {lark.literal(notation.before_key)}"
        end = lark.literal(notation.after_arguments)
        options = self._continued(f"{after} {begin}", f"{after} {end}")
        lark.define_with_bits(name, options)

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

    def _plain_value(self, form: Plain, bits: str) -> str:
        lark, after = self._lark, self._notation.after_value
        if marker := lark.first_marker(after):
            # A token ends the text, so its characters must not occur in the text: the reader could
            # not tell them from the token.
            before, _, _ = after.partition(marker)
            if before:
                return f"{self._text_and(before, form)} {self._closed_at(before)}::{bits}"
            text = lark.terminal(form.constraints, without=marker)
            return f"{text}{'?' * form.may_be_empty} {self._closed}::{bits}"
        if form not in self._plain:
            self._plain[form] = lark.declare()
            self._define_plain(self._plain[form], form)
        return f"{self._plain[form]}::{bits}"

    def _text_and(self, before: str, form: Plain) -> str:
        """The terminal for a text and the part of its closing tag before the tag's own token.

        That part alone may occur in the text too, so it does not end the terminal.
        """
        constraints = [f"(?:{one}){before}" for one in form.constraints or [ANY_TEXT]]
        return self._lark.terminal(constraints, without=self._notation.after_value)

    def _closed_at(self, before: str) -> str:
        """The rule for what follows such a terminal."""
        if self._closed_in_tag is None:
            self._closed_in_tag = self._lark.declare()
            rest = self._notation.after_value.removeprefix(before)
            self._define_closed(self._closed_in_tag, rest)
        return self._closed_in_tag

    def _define_plain(self, name: str, form: Plain) -> None:
        """Defines the rule for a text and what ends it.

        A closing tag ends the text only together with what must follow the tag, so that a file
        which contains such a tag can be written. While a required argument is missing, an end of
        the call in the text is forbidden: a model that forgot the argument would continue the text.
        """
        lark, notation = self._lark, self._notation
        text = lark.terminal(form.constraints)
        end, begin = endings(notation)
        if end:
            options = self._continued(
                lark.rule(text, f"[suffix={quoted(begin)}]"),
                lark.rule(text, f"[suffix={quoted(end)}]"),
            )
            if self._is_incomplete:
                ended = next(end[:n] for n in range(len(end)) if not begin.startswith(end[:n]))
                unended = lark.terminal(form.constraints, without=ended)
                value = lark.rule(unended, f"[suffix={quoted(begin)}]")
                keys, is_open = options[0]
                options[0] = keys, _both(is_open, self._is_complete)
                options.append((f"{value} {self.keys}::_", self._is_incomplete))
        else:
            value = lark.rule(text, f"[suffix={quoted(notation.after_value)}]")
            next_key = lark.literal(notation.separator + notation.before_key)
            last = lark.literal(notation.after_arguments)
            options = self._continued(f"{value} {next_key}", f"{value} {last}")
        lark.define_with_bits(name, options)


def endings(notation: TaggedNotation) -> tuple[str, str]:
    """The texts that end a plain value: as the last argument, and with an argument after it.

    Both are empty if the closing tag alone ends a value, or if one of them begins with the other,
    so that they cannot be told apart.
    """
    end = notation.after_value + notation.after_arguments
    begin = notation.after_value + notation.separator + notation.before_key
    if notation.ends_at_first_tag or end.startswith(begin) or begin.startswith(end):
        return "", ""
    return end, begin


def _both(first: str, second: str) -> str:
    """The condition that both conditions hold; "" always holds."""
    return f"and({first}, {second})" if first and second else first or second
