"""Reads tool calls that are written as tags, and keeps every value exactly as it was written.

The parsers of mlx-lm cut a value at the first closing tag inside it, strip its whitespace, or turn
the text `null` into None; a file that a model writes through such a call would be damaged. Here a
value ends only at a closing tag that another argument or the end of the call follows. Words behind
the end of a call are not part of it, and a call with other text that belongs to no argument is an
error.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from re import Pattern
from typing import Any, Self

from anyclaude.mlx.decode.lenient import read_values

QUOTED_NAME = r"""["']?(?P<name>[^"'<>]+?)["']?"""
"""A name with or without quotes around it."""


@dataclass(frozen=True)
class TaggedCall:
    name: str
    arguments: dict[str, Any]
    # Whether the values are plain text whose type only the tool's schema can tell.
    untyped: bool = True


@dataclass(frozen=True)
class TagDialect:
    """The tags of one family of models."""

    # Matches a call, with the groups `name` and `body`.
    call: Pattern[str]
    opener: str
    # Match an argument, with the groups `key` and `value`; `unclosed` needs no closing tag.
    argument: Pattern[str]
    unclosed: Pattern[str]
    closer: str
    # The texts that begin and end a call; both are empty if only the end marker ends it.
    begin: str
    end: str
    # The value that the text between an opening and a closing tag stands for.
    value: Callable[[str], Any]

    @classmethod
    def of(
        cls,
        *,
        opener: str,
        call: str,
        key: str,
        closer: str,
        begin: str = "",
        end: str = "",
        value: Callable[[str], Any] = str,
    ) -> Self:
        """A dialect.

        Args:
            opener: the text that begins an argument.
            call: a pattern for a whole call, with the groups `name` and `body`.
            key: a pattern for all that stands before a value, with the group `key`. It may have a
                group `type` for the type that the model chose: strings have "string" or "true".
            closer: a pattern for the closing tag of a value; `(?P=key)` stands for the key in it.
            begin, end: the texts that begin and end a call, in dialects that have both.
            value: turns the text of a value into the value; it stays text if only the tool's schema
                can tell its type.
        """
        following = rf"\s*(?={re.escape(opener)}|\Z)"
        tags = rf"{closer}|{re.escape(end)}" if end else closer
        return cls(
            call=re.compile(call, re.DOTALL),
            opener=opener,
            argument=re.compile(rf"\s*{key}(?P<value>.*?){closer}{following}", re.DOTALL),
            # Without a closing tag in its place, a value that contains one could end at either.
            unclosed=re.compile(
                rf"\s*{key}(?P<value>(?:(?!{tags}).)*?)(?:{closer})?{following}", re.DOTALL
            ),
            # Where no argument is read, the closing tag of any key counts.
            closer=closer.replace("(?P=key)", "[^<>]+"),
            begin=begin,
            end=end,
            value=value,
        )

    def matches(self, text: str) -> bool:
        """Whether `text` begins with a call of this dialect."""
        return self.call.match(text) is not None

    def ends_inside_value(self, text: str) -> bool:
        """Whether `text` ends between an argument's opening and closing tag."""
        closers = [match.start() for match in re.finditer(self.closer, text)]
        return text.rfind(self.opener) > max(closers, default=-1)

    def divided(self, text: str) -> tuple[str, str]:
        """Divides `text` into the calls at its beginning and the words behind them.

        There are no words if all of `text` can be read, or if it is uncertain where the calls end:
        if a call is ended later that the words do not begin, the first end may be part of a value.
        """
        if not self.end or self._is_whole(text):
            return text, ""
        for match in re.finditer(re.escape(self.end), text):
            calls, words = text[: match.end()], text[match.end() :]
            if self._is_whole(calls):
                return (text, "") if self._ends_outer_call(words) else self._extended(calls, words)
        return text, ""

    def _extended(self, calls: str, rest: str) -> tuple[str, str]:
        """The calls, with those that follow them in `rest`, and the words behind all of them."""
        if not self.matches(rest):
            return calls, rest
        more, words = self.divided(rest)
        return calls + more, words

    def _ends_outer_call(self, words: str) -> bool:
        """Whether `words` end a call that they do not begin."""
        depth = 0
        for match in re.finditer(f"{re.escape(self.begin)}|{re.escape(self.end)}", words):
            depth += 1 if match[0] == self.begin else -1
            if depth < 0:
                return True
        return False

    def _is_whole(self, text: str) -> bool:
        """Whether every part of `text` belongs to a call whose arguments are all closed."""
        try:
            calls = list(_matches(self.call, text))
            for call in calls:
                self._arguments(self.argument, call["body"])
        except ValueError:
            return False
        return bool(calls)

    def read(self, text: str) -> Iterator[TaggedCall]:
        """The calls in `text`.

        Raises:
            ValueError: some of the text belongs to no call or to no argument.
        """
        for match in _matches(self.call, text):
            yield self._read_call(match["name"].strip(), match["body"])

    def _read_call(self, name: str, body: str) -> TaggedCall:
        if body.lstrip().startswith("{"):
            [arguments] = read_values(body)
            return TaggedCall(name, dict(arguments), untyped=False)
        try:
            return TaggedCall(name, self._arguments(self.argument, body))
        except ValueError:
            return TaggedCall(name, self._arguments(self.unclosed, body))

    def _arguments(self, argument: Pattern[str], body: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for match in _matches(argument, body):
            key = match["key"].strip()
            if key in found:
                raise ValueError("an argument is given twice, and either could be meant")
            chosen = match.groupdict().get("type") or "string"
            is_text = chosen in ("string", "true")
            found[key] = self.value(match["value"]) if is_text else _typed(match["value"])
        return found


def _typed(text: str) -> Any:
    """A value that the model wrote as JSON; the text if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _matches(pattern: Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches of `pattern` that follow one another without a gap until only whitespace is left."""
    at = 0
    while text[at:].strip():
        match = pattern.match(text, at)
        if match is None:
            raise ValueError("text between calls or arguments")
        yield match
        at = match.end()
