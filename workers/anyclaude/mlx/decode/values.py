"""How some families write a value between its tags."""

import re
from typing import Any, Final

_CDATA: Final = re.compile(r"\s*<!\[CDATA\[(?P<text>.*)\]\]>\s*", re.DOTALL)
_MINIMAX: Final = r"\]<\]minimax\[>\["
_NESTED: Final = re.compile(
    rf"\s*{_MINIMAX}<(?P<key>[^<>/]+)>(?P<value>.*?){_MINIMAX}</(?P=key)>\s*", re.DOTALL
)


def without_cdata(text: str) -> str:
    """The text of a value that may stand in a CDATA section (MiniCPM5)."""
    match = _CDATA.fullmatch(text)
    return match["text"] if match else text


def nested_value(text: str) -> Any:
    """A value whose parts stand in tags of their own (MiniMax-M3): text, an object or a list.

    A list's parts are named `item`.

    Raises:
        ValueError: some of the text belongs to no part.
    """
    if not _NESTED.match(text):
        return text
    parts: list[tuple[str, Any]] = []
    at = 0
    while at < len(text):
        match = _NESTED.match(text, at)
        if match is None:
            raise ValueError("text between the parts of a value")
        parts.append((match["key"], nested_value(match["value"])))
        at = match.end()
    keys = [key for key, _ in parts]
    if set(keys) == {"item"}:
        return [value for _, value in parts]
    if len(set(keys)) < len(keys):
        raise ValueError("a key is given twice, and either could be meant")
    return dict(parts)
