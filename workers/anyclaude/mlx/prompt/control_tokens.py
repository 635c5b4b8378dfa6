"""Makes sure that only the chat template writes control tokens, and never the content.

Text of users, tools and files may contain the characters of a control token. Before rendering, a
break character is put inside each such place, so every unbroken control token in the rendered text
is the template's own. The breaks are removed when the text between control tokens is encoded.
Templates that search content for markup (`'</think>' in content`) are not misled either.

A break is also put beside content that could form a control token together with punctuation which
the template writes around it, such as a schema key `think` that is rendered as `<think>`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tokenizers import AddedToken

# Candidates for breaks: rare characters, printable so that templates which print Python values do
# not escape them, and not whitespace so that they are never trimmed. The first two that the model
# does not use are chosen.
_RARE: Final = "\U0001d159\U0001d1a6\U00016fe4\U0001d19d\U0001d1a7\U0001d19e"


class ControlTokens:
    """The control tokens of one tokenizer."""

    def __init__(self, added: Iterable[AddedToken], avoid: str = "") -> None:
        """All `added` tokens are control tokens except single characters and whitespace.

        Characters of `avoid`, which is the template, are not used as breaks.
        """
        tokens = [token for token in added if _is_control(token.content)]
        self.texts = frozenset(token.content for token in tokens)
        used = avoid + "".join(self.texts)
        self._broken, self._escape = [char for char in _RARE if char not in used][:2]
        # Texts that content cannot contain, since there the escape is followed by 0 or 1.
        self.end = f"{self._escape}2"
        self.aside = (f"{self._escape}3", f"{self._escape}4")
        self._spelling = re.compile(_before_rest(self.texts))
        self._edges = _Edges(self.texts)
        self._split = re.compile(f"({'|'.join(_spaced(tokens)) or '(?!)'})")
        self._special = re.compile(f"[{self._broken}{self._escape}]")
        self._plain = re.compile(f"{self._broken}|{self._escape}[01]")

    def protect(self, value: Any) -> Any:
        """A copy of `value` in which no string, keys included, contains a control token."""
        if isinstance(value, str):
            return self._protect_text(value)
        if isinstance(value, Mapping):
            return {self.protect(key): self.protect(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.protect(item) for item in value]
        return value

    def _protect_text(self, text: str) -> str:
        opens, closes = self._edges.touch(text)
        text = self._special.sub(self._escaped, text)
        text = self._spelling.sub(rf"\g<0>{self._broken}", text)
        if opens or closes:
            return f"{self._broken * opens}{text}{self._broken * closes}"
        return text

    def _escaped(self, found: re.Match[str]) -> str:
        return f"{self._escape}{int(found[0] == self._escape)}"

    def split(self, rendered: str) -> list[str]:
        """Text and control tokens in turn; the first and the last piece are text, perhaps empty.

        A control token includes the whitespace that the tokenizer removes beside it.
        """
        return self._split.split(rendered)

    def reveal(self, text: str) -> list[str]:
        """A text piece of `split` without breaks, divided inside each control token in it."""
        if not self._special.search(text):
            return [text]
        plain = self._plain.sub(self._original, text)
        cuts = [found.end() for found in self._spelling.finditer(plain)]
        return [plain[i:j] for i, j in zip([0, *cuts], [*cuts, len(plain)], strict=True)]

    def _original(self, found: re.Match[str]) -> str:
        if found[0] == self._broken:
            return ""
        return self._escape if found[0][1] == "1" else self._broken


def _is_control(text: str) -> bool:
    return len(text) > 1 and not text.isspace()


class _Edges:
    """Finds content that punctuation beside it would complete to a control token."""

    def __init__(self, texts: Iterable[str]) -> None:
        heads: defaultdict[str, set[str]] = defaultdict(set)
        tails: defaultdict[str, set[str]] = defaultdict(set)
        cores: set[str] = set()
        for text in texts:
            for start in range(1, _punctuation(text) + 1):
                heads[text[start]].add(text[start:])
                cores |= {text[start:-end] for end in range(1, _punctuation(text[::-1]) + 1)}
            for end in range(1, _punctuation(text[::-1]) + 1):
                tails[text[-end - 1]].add(text[:-end])
        self._heads = {char: tuple(found) for char, found in heads.items()}
        self._tails = {char: tuple(found) for char, found in tails.items()}
        self._cores = cores - {""}

    def touch(self, text: str) -> tuple[bool, bool]:
        """Whether a break is needed before `text`, and whether one is needed after it."""
        if not text:
            return False, False
        opens = text in self._cores or text.startswith(self._heads.get(text[0], ()))
        return opens, text.endswith(self._tails.get(text[-1], ()))


def _punctuation(text: str) -> int:
    """The number of characters before the first letter or digit, but never all of them."""
    found = next((i for i, char in enumerate(text) if char.isalnum()), len(text))
    return min(found, len(text) - 1)


def _before_rest(texts: Iterable[str]) -> str:
    """A pattern for the first character of each text, also where texts overlap."""
    rests: defaultdict[str, set[str]] = defaultdict(set)
    for text in texts:
        rests[text[0]].add(text[1:])
    found = (f"{re.escape(char)}(?={_any_of(rest)})" for char, rest in sorted(rests.items()))
    return "|".join(found) or "(?!)"


def _spaced(tokens: Iterable[AddedToken]) -> list[str]:
    """Patterns for the tokens, with the whitespace that the tokenizer removes beside them."""
    kinds: defaultdict[tuple[bool, bool], set[str]] = defaultdict(set)
    for token in tokens:
        kinds[token.lstrip, token.rstrip].add(token.content)
    space = r"\s*"
    return [
        f"{space * left}{_any_of(texts)}{space * right}" for (left, right), texts in kinds.items()
    ]


def _any_of(texts: Iterable[str]) -> str:
    """A pattern for the longest of the texts, in which common beginnings are tried once."""
    rests: defaultdict[str, set[str]] = defaultdict(set)
    optional = False
    for text in texts:
        optional = optional or not text
        if text:
            rests[text[0]].add(text[1:])
    branches = [re.escape(char) + _any_of(rest) for char, rest in sorted(rests.items())]
    if len(branches) < 2 and not optional:
        return "".join(branches)
    return f"(?:{'|'.join(branches)})" + "?" * optional
