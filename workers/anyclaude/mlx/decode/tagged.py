"""Reads tool calls written as tags, keeping every value as the text it was written as.

The readers of mlx-lm cut a value at the first closing tag inside it, trim it, or turn the text
`null` into None; a file written through such a call would be damaged. Here a value ends at the
closing tag that another argument or the end of the call follows, and all text of a call must be
accounted for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from re import Pattern
from typing import Any

from anyclaude.mlx.decode.lenient import read_values


@dataclass(frozen=True)
class Dialect:
    # Groups `name` and `body`.
    call: Pattern[str]
    opener: str
    # Groups `key` and `value`; `unclosed` does without the closing tag.
    argument: Pattern[str]
    unclosed: Pattern[str]
    closer: str


def _dialect(opener: str, call: str, key: str, closer: str) -> Dialect:
    following = rf"\s*(?={re.escape(opener)}|\Z)"
    return Dialect(
        call=re.compile(call, re.DOTALL),
        opener=opener,
        argument=re.compile(rf"\s*{key}(?P<value>.*?){closer}{following}", re.DOTALL),
        unclosed=re.compile(rf"\s*{key}(?P<value>.*?)(?:{closer})?{following}", re.DOTALL),
        closer=closer,
    )


_QUOTED_NAME = r"""["']?(?P<name>[^"'<>]+?)["']?"""
_DIALECTS = (
    # Qwen3-Coder: line ends around a value belong to the tags.
    _dialect(
        opener="<parameter=",
        call=r"\s*<function=(?P<name>[^\s<>]+)>?(?P<body>.*?)"
        r"(?:</function>\s*(?=<function=|\Z)|\Z)",
        key=r"<parameter=(?P<key>[^\s<>]+)>?\n?",
        closer="\n?</parameter>",
    ),
    # GLM 4.5 and later.
    _dialect(
        opener="<arg_key>",
        call=r"\s*(?P<name>[\w.:/-]+)\s*(?P<body><arg_key>.*)\Z",
        key=r"<arg_key>(?P<key>.*?)</arg_key>(?:\\n|\s)*<arg_value>",
        closer="</arg_value>",
    ),
    _dialect(
        opener="<longcat_arg_key>",
        call=r"\s*(?P<name>[\w.:/-]+)\s*(?P<body><longcat_arg_key>.*)\Z",
        key=r"<longcat_arg_key>(?P<key>.*?)</longcat_arg_key>(?:\\n|\s)*<longcat_arg_value>",
        closer="</longcat_arg_value>",
    ),
    # MiniMax M2.
    _dialect(
        opener="<parameter name=",
        call=rf"\s*<invoke name={_QUOTED_NAME}>(?P<body>.*?)"
        r"(?:</invoke>\s*(?=<invoke name=|\Z)|\Z)",
        key=r"""<parameter name=["']?(?P<key>[^"'<>]+?)["']?>""",
        closer="</parameter>",
    ),
)


@dataclass(frozen=True)
class TaggedCall:
    name: str
    arguments: dict[str, Any]
    # The values are text whose type only the tool's schema can tell.
    untyped: bool = True


def is_tagged(text: str) -> bool:
    """Whether `text` is of a dialect that is read here."""
    return _dialect_of(text) is not None


def ends_inside_value(text: str) -> bool:
    """Whether tagged `text` breaks off between an argument's opening and closing tag."""
    dialect = _dialect_of(text)
    if dialect is None:
        return False
    closers = [match.start() for match in re.finditer(dialect.closer, text)]
    return text.rfind(dialect.opener) > max(closers, default=-1)


def _dialect_of(text: str) -> Dialect | None:
    return next((dialect for dialect in _DIALECTS if dialect.call.match(text)), None)


def read_tagged(text: str) -> list[TaggedCall]:
    """The calls in `text`.

    Raises:
        ValueError: some of the text belongs to no call or no argument.
    """
    dialect = _dialect_of(text)
    if dialect is None:
        raise ValueError("no call of a known form")
    return list(_calls(dialect, text))


def _calls(dialect: Dialect, text: str) -> Iterator[TaggedCall]:
    at = 0
    while text[at:].strip():
        match = dialect.call.match(text, at)
        if match is None:
            raise ValueError("text between calls")
        yield _call(dialect, match["name"].strip(), match["body"])
        at = match.end()


def _call(dialect: Dialect, name: str, body: str) -> TaggedCall:
    if body.lstrip().startswith("{"):
        [arguments] = read_values(body)
        return TaggedCall(name, dict(arguments), untyped=False)
    try:
        return TaggedCall(name, _arguments(dialect.argument, body))
    except ValueError:
        return TaggedCall(name, _arguments(dialect.unclosed, body))


def _arguments(argument: Pattern[str], body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in _pairs(argument, body):
        if key in found:
            # Which one was meant is not ours to choose.
            raise ValueError("an argument given twice")
        found[key] = value
    return found


def _pairs(argument: Pattern[str], body: str) -> Iterator[tuple[str, str]]:
    at = 0
    while body[at:].strip():
        match = argument.match(body, at)
        if match is None:
            raise ValueError("text between arguments")
        yield match["key"].strip(), match["value"]
        at = match.end()
