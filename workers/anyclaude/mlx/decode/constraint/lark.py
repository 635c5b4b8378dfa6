"""Writes grammars in llguidance's dialect of Lark.

Whitespace is fixed everywhere. A marker that is a token of its own is allowed only as that token,
so the same characters inside a string are text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llguidance import regex_to_lark

from anyclaude.mlx.decode.constraint.parameters import ITEM_SEPARATOR, KEY_SEPARATOR
from anyclaude.mlx.decode.constraint.schemas import Schema
from anyclaude.mlx.decode.notation import Parts, Pattern, Perhaps

ANY_TEXT = "(?s:.*)"


class Lark:
    """One grammar that is being written."""

    def __init__(self, markers: Mapping[str, int], *, compact: bool = False) -> None:
        """
        Args:
            markers: the id of each text that is a token of its own.
            compact: whether a space behind a comma or a colon of JSON may be missing.
        """
        self._compact = compact
        self._markers = markers
        self._split = re.compile("(" + "|".join(map(re.escape, _longest_first(markers))) + ")")
        self._rules: list[str] = []
        self._terminals: dict[str, str] = {}

    def text(self, start: str) -> str:
        """The whole grammar, with `start` as the body of its first rule."""
        return "\n".join([f"start: {start}", *self._rules]) + "\n"

    def literal(self, text: str) -> str:
        """The grammar items that match exactly `text`."""
        parts = self._split.split(text) if self._markers else [text]
        return " ".join(
            f"<[{self._markers[part]}]>" if part in self._markers else quoted(part)
            for part in parts
            if part
        )

    def first_marker(self, text: str) -> str:
        """The first marker in `text` that is a token of its own; empty if there is none."""
        match = self._split.search(text) if self._markers else None
        return match[0] if match else ""

    def parts(self, parts: Parts) -> str:
        return " ".join(map(self._part, parts))

    def _part(self, part: str | Pattern | Perhaps) -> str:
        match part:
            case Pattern(regex):
                return f"/{regex_to_lark(regex)}/"
            case Perhaps(text):
                return f"({self.literal(text)})?"
        return self.literal(part)

    def separator(self, text: str) -> str:
        """The grammar items for a comma or a colon of JSON."""
        return f"/{text}?/" if self._compact else self.literal(text)

    def rule(self, body: str, attributes: str = "") -> str:
        """Adds a rule and returns its name."""
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        return name

    def declare(self) -> str:
        """The name of a rule that `define` gives a body later, for a rule that contains itself."""
        return self.rule("")

    def define(self, name: str, body: str) -> str:
        self._rules[int(name[1:])] = f"{name}: {body}"
        return name

    def define_with_bits(self, name: str, options: Iterable[tuple[str, str]]) -> None:
        """Gives a declared rule alternatives that depend on a set of bits.

        llguidance passes the set along: `NAME::0x0` uses the rule with an empty set, `NAME::_` with
        the set as it is, and `NAME::set_bit(N)` with one more bit.

        Args:
            options: each alternative, and its condition on the bits; "" if there is none.
        """
        bodies = [f"{body} %if {condition}" if condition else body for body, condition in options]
        self._rules[int(name[1:])] = f"{name}::_: " + " | ".join(bodies)

    def alternatives(self, options: Iterable[str]) -> str:
        return self.rule(" | ".join(options))

    def json(self, schema: Schema) -> str:
        """Adds a rule for JSON that fits `schema`."""
        options: dict[str, Any] = {
            "whitespace_flexible": False,
            # Both are regular expressions.
            "item_separator": ITEM_SEPARATOR + "?" * self._compact,
            "key_separator": KEY_SEPARATOR + "?" * self._compact,
            "lenient": True,
        }
        return self.rule("%json " + json.dumps({**schema, "x-guidance": options}))

    def terminal(
        self,
        constraints: Sequence[str],
        *,
        without: str = "",
        other_than: Sequence[str] = (),
        but_not: Sequence[str] = (),
    ) -> str:
        """Adds a terminal for text, or returns the one that was added for the same text.

        Args:
            constraints: regular expressions that must all match the whole text.
            without: a text that must not occur in it.
            other_than: texts that it must not be equal to.
            but_not: regular expressions that must not match the whole text.
        """
        expressions = [f"/{regex_to_lark(text, 'dw')}/" for text in constraints or [ANY_TEXT]]
        excluded = [f"{ANY_TEXT}{re.escape(without)}{ANY_TEXT}"] if without else []
        if other_than:
            excluded.append("|".join(map(re.escape, other_than)))
        expressions += [f"~/{regex_to_lark(text)}/" for text in excluded]
        expressions += [f"~/{regex_to_lark(text, 'dw')}/" for text in but_not]
        body = " & ".join(expressions)
        if body not in self._terminals:
            self._terminals[body] = name = f"T{len(self._rules)}"
            self._rules.append(f"{name}: {body}")
        return self._terminals[body]


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=len, reverse=True)


def quoted(text: str) -> str:
    """A string literal of the dialect."""
    return json.dumps(text, ensure_ascii=False)
