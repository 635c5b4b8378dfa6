"""Reads calls that are written as a Python list: `[Bash(command="ls"), Status()]` (LFM2).

The parser of mlx-lm reads what Python reads. It divides the rest at commas, so a key with a hyphen
or a line end inside a string changes the values, and it drops the words behind the list.
"""

import ast
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

_OPENING, _CLOSING = "[({", "])}"
# Strings, names before a bracket, keys before an equals sign, and brackets.
_TOKEN: Final = re.compile(
    r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?P<name>[\w.:-]+)(?=\()"""
    r"""|(?<=[(,\s])(?P<key>[\w.:$-]+)=|[\[\](){}]""",
    re.DOTALL,
)
_FIRST_CALL: Final = re.compile(r"\s*\[\s*[\w.:-]+\(")
# The last character of a value that begins with these.
_LAST: Final = {'"': '"', "'": "'", "[": "]", "{": "}"}
_JSON_WORDS: Final = {"true": True, "false": False, "null": None}


def begins_list(text: str) -> bool:
    """Whether `text` begins with a list whose first part is a call."""
    return _FIRST_CALL.match(text) is not None


def divided(text: str) -> tuple[str, str]:
    """Divides `text` into the list at its beginning and the words behind it."""
    if not text.lstrip().startswith("["):
        return text, ""
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        if depth == 0 and match[0] == "]":
            return text[: match.end()], text[match.end() :].lstrip()
    return text, ""


def ends_inside_string(text: str) -> bool:
    """Whether `text` is a list that ends inside a string."""
    return text.lstrip().startswith("[") and any(
        quote in _TOKEN.sub("", text) for quote in ('"', "'")
    )


def read_pythonic(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the arguments of each call in `text`.

    Raises:
        ValueError, SyntaxError: the text is no list of calls with named arguments.
    """
    parsed, names = _parsed(text)
    if not isinstance(parsed, ast.List) or not parsed.elts:
        raise ValueError("not a list of calls")
    for call in parsed.elts:
        yield _call(call, names)


def as_json(text: str) -> str | None:
    """The JSON of a value that is written as JSON or as a Python literal; None for other text."""
    if text[-1:] != _LAST.get(text[:1], text[-1:]):
        # An incomplete value, of which there may be many before the complete one.
        return None
    with suppress(ValueError):
        json.loads(text)
        return text
    try:
        value = ast.literal_eval(_JsonWords().visit(_parsed(text)[0]))
        # By way of ASCII, since two escapes may stand for one character.
        return json.dumps(json.loads(json.dumps(value)), ensure_ascii=False)
    except (ValueError, TypeError, SyntaxError):
        return None


def _parsed(text: str) -> tuple[ast.expr, list[str]]:
    """The text as Python reads it, with `n0`, `n1` and so on for these names."""
    names: list[str] = []

    def as_python(match: re.Match[str]) -> str:
        """The token as Python reads it: names may be any, and strings may contain line ends."""
        name = match["name"] or match["key"]
        if name is None:
            return match[0].replace("\n", "\\n").replace("\r", "\\r")
        names.append(name)
        return f"n{len(names) - 1}" + "=" * (match["key"] is not None)

    return ast.parse(_TOKEN.sub(as_python, text.strip()), mode="eval").body, names


def _call(node: ast.expr, names: list[str]) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("not a call with named arguments")
    found: dict[str, Any] = {}
    for keyword in node.keywords:
        key = names[int(str(keyword.arg)[1:])]
        if key in found:
            raise ValueError("an argument is given twice, and either could be meant")
        found[key] = ast.literal_eval(_JsonWords().visit(keyword.value))
    return names[int(node.func.id[1:])], found


class _JsonWords(ast.NodeTransformer):
    """Replaces the words of JSON by values, since templates write nested values as JSON."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_JSON_WORDS[node.id]) if node.id in _JSON_WORDS else node
