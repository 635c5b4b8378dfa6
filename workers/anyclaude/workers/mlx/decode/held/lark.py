"""Grammars for llguidance, written in its Lark dialect.

White space is fixed everywhere. A mark that is a token of its own can only come as that token, so
text that looks like it, inside a string, is text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llguidance import regex_to_lark

from anyclaude.workers.mlx.decode.held.parameters import (
    ITEM_SEPARATOR,
    KEY_SEPARATOR,
    Choice,
    Form,
    Json,
    Parameter,
    Plain,
)
from anyclaude.workers.mlx.decode.held.schemas import Schema
from anyclaude.workers.mlx.decode.held.shapes import JsonShape, Parts, Pattern, Shape, TaggedShape

_ANY_TEXT = "(?s:.*)"


class Lark:
    """A grammar being written."""

    def __init__(self, marks: Mapping[str, int], *, coerce: bool = False) -> None:
        """
        Args:
            marks: texts that are tokens of their own.
            coerce: be content with a looser grammar where a schema cannot be expressed.
        """
        self._marks = marks
        self._split = re.compile("(" + "|".join(map(re.escape, _longest_first(marks))) + ")")
        self._coerce = coerce
        self._rules: list[str] = []

    def coercing(self, coerce: bool) -> "Lark":
        """This grammar, with what `coerce` says for the rules that come now."""
        self._coerce = coerce
        return self

    def text(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules]) + "\n"

    def literal(self, text: str) -> str:
        """The items that stand for `text`."""
        parts = self._split.split(text) if self._marks else [text]
        return " ".join(
            f"<[{self._marks[part]}]>" if part in self._marks else _quoted(part)
            for part in parts
            if part
        )

    def first_mark(self, text: str) -> str:
        """The first token of its own in `text`; empty when there is none."""
        match = self._split.search(text) if self._marks else None
        return match[0] if match else ""

    def parts(self, parts: Parts) -> str:
        return " ".join(
            f"/{regex_to_lark(part.regex)}/" if isinstance(part, Pattern) else self.literal(part)
            for part in parts
        )

    def rule(self, body: str, attributes: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        return name

    def alternatives(self, options: Iterable[str]) -> str:
        return self.rule(" | ".join(options))

    def json(self, schema: Schema) -> str:
        options: dict[str, Any] = {
            "whitespace_flexible": False,
            "item_separator": ITEM_SEPARATOR,
            "key_separator": KEY_SEPARATOR,
        }
        if self._coerce:
            options |= {"coerce_one_of": True, "lenient": True}
        return self.rule("%json " + json.dumps({**schema, "x-guidance": options}))

    def terminal(self, constraints: Sequence[str], without: str = "") -> str:
        """A text that fits all of `constraints` and does not contain `without`."""
        name = f"T{len(self._rules)}"
        expressions = [f"/{regex_to_lark(text, 'dw')}/" for text in constraints or [_ANY_TEXT]]
        if without:
            anywhere = f"{_ANY_TEXT}{re.escape(without)}{_ANY_TEXT}"
            expressions.append(f"~/{regex_to_lark(anywhere)}/")
        self._rules.append(f"{name}: {' & '.join(expressions)}")
        return name


def call(lark: Lark, shape: Shape, name: str, schema: Schema, known: list[Parameter] | None) -> str:
    """The rule for one tool's call, from its name to the end of its arguments.

    Args:
        known: the arguments, for a tagged shape.
    """
    if isinstance(shape, JsonShape):
        head = lark.literal(json.dumps(name, ensure_ascii=False)[1:-1])
        return lark.rule(f"{head} {lark.parts(shape.before_arguments)} {lark.json(schema)}")
    head = f"{lark.literal(name)} {lark.parts(shape.after_name)}"
    if known is None:
        return lark.rule(f"{head} {lark.json(schema)} {lark.literal(shape.after_arguments)}")
    return lark.rule(f"{head} {_Tagged(lark, shape, known).arguments()}")


def calls(lark: Lark, shape: Shape, rules: Sequence[str]) -> str:
    """The rule for any one of some calls, between the marks that are there once for each."""
    after = lark.literal(shape.after_arguments) if isinstance(shape, JsonShape) else ""
    return lark.rule(f"{lark.literal(shape.before_name)} ({' | '.join(rules)}) {after}")


class _Tagged:
    """The rules for the arguments of one tool, in the order of its schema."""

    def __init__(self, lark: Lark, shape: TaggedShape, parameters: Sequence[Parameter]) -> None:
        self._lark = lark
        self._shape = shape
        self._parameters = parameters
        self._from: dict[int, str] = {}

    def arguments(self) -> str:
        options = []
        if self._parameters:
            options.append(f"{self._lark.literal(self._shape.before_key)} {self._key_from(0)}")
        if self._may_end(0):
            options.append(self._lark.literal(self._shape.after_arguments) or '""')
        return self._lark.alternatives(options)

    def _may_end(self, at: int) -> bool:
        return not any(parameter.required for parameter in self._parameters[at:])

    def _key_from(self, at: int) -> str:
        """The rule for an argument from its name on, and all that follow it."""
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
        after_key = self._shape.after_key.replace("{type}", parameter.type_name)
        head = f"{self._lark.literal(parameter.name)} {self._lark.literal(after_key)}"
        values = [self._value(form, index + 1) for form in parameter.forms]
        return f"{head} ({' | '.join(values)})"

    def _value(self, form: Form, following: int) -> str:
        match form:
            case Plain():
                return self._plain(form, following)
            case Json(schema):
                return f"{self._lark.json(schema)} {self._closed(following)}"
            case Choice(values):
                options = self._lark.alternatives(
                    self._lark.literal(text) or '""' for text in values
                )
                return f"{options} {self._closed(following)}"

    def _closed(self, following: int) -> str:
        return f"{self._lark.literal(self._shape.after_value)} {self._goes_on(following)}"

    def _goes_on(self, following: int) -> str:
        options = []
        if following < len(self._parameters):
            begin = self._lark.literal(self._shape.separator + self._shape.before_key)
            options.append(f"{begin} {self._key_from(following)}")
        if self._may_end(following):
            options.append(self._lark.literal(self._shape.after_arguments) or '""')
        return self._lark.alternatives(options)

    def _plain(self, form: Plain, following: int) -> str:
        if mark := self._lark.first_mark(self._shape.after_value):
            # A token ends the text; spelled out it would be taken for that token.
            text = self._lark.terminal(form.constraints, without=mark)
            return f"{text}{'?' * form.may_be_empty} {self._closed(following)}"
        text = self._lark.terminal(form.constraints)
        return f"({' | '.join(self._ended(text, following))})"

    def _ended(self, text: str, following: int) -> list[str]:
        """The text up to what ends it.

        A closing tag ends it only together with what must follow, so that a file which holds such
        a tag can be written.
        """
        lark, after = self._lark, self._shape.after_value
        end, begin = endings(self._shape)
        if not end:
            return [f"{lark.rule(text, f'[suffix={_quoted(after)}]')} {self._goes_on(following)}"]
        options = []
        if following < len(self._parameters):
            value = lark.rule(text, f"[suffix={_quoted(begin)}]")
            options.append(f"{value} {self._key_from(following)}")
        if self._may_end(following):
            options.append(lark.rule(text, f"[suffix={_quoted(end)}]"))
        return options


def endings(shape: TaggedShape) -> tuple[str, str]:
    """What ends a plain value behind which nothing, or another argument, comes.

    Two empty texts when they cannot be told apart at their first difference.
    """
    end = shape.after_value + shape.after_arguments
    begin = shape.after_value + shape.separator + shape.before_key
    if end.startswith(begin) or begin.startswith(end):
        return "", ""
    return end, begin


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=len, reverse=True)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
