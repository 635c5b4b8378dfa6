"""Grammars for llguidance, written in its Lark dialect.

White space is fixed everywhere. A mark that is a token of its own can only come as that token, so
text that looks like it, inside a string, is text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llguidance import regex_to_lark

from anyclaude.mlx.decode.constraint.parameters import ITEM_SEPARATOR, KEY_SEPARATOR
from anyclaude.mlx.decode.constraint.schemas import Schema
from anyclaude.mlx.decode.notations import Parts, Pattern

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

    @property
    def coerces(self) -> bool:
        """Whether a looser grammar is welcome where a schema cannot be expressed."""
        return self._coerce

    def text(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules]) + "\n"

    def literal(self, text: str) -> str:
        """The items that stand for `text`."""
        parts = self._split.split(text) if self._marks else [text]
        return " ".join(
            f"<[{self._marks[part]}]>" if part in self._marks else quoted(part)
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

    def ahead(self) -> str:
        """The name of a rule that `define` writes, for one that leads back to itself."""
        return self.rule("")

    def define(self, name: str, body: str) -> str:
        self._rules[int(name[1:])] = f"{name}: {body}"
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

    def terminal(
        self, constraints: Sequence[str], *, without: str = "", other_than: Sequence[str] = ()
    ) -> str:
        """A text that fits all of `constraints`, does not contain `without` and is another."""
        name = f"T{len(self._rules)}"
        expressions = [f"/{regex_to_lark(text, 'dw')}/" for text in constraints or [_ANY_TEXT]]
        if without:
            anywhere = f"{_ANY_TEXT}{re.escape(without)}{_ANY_TEXT}"
            expressions.append(f"~/{regex_to_lark(anywhere)}/")
        if other_than:
            expressions.append(f"~/{regex_to_lark('|'.join(map(re.escape, other_than)))}/")
        self._rules.append(f"{name}: {' & '.join(expressions)}")
        return name


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=len, reverse=True)


def quoted(text: str) -> str:
    """A literal of the dialect."""
    return json.dumps(text, ensure_ascii=False)
