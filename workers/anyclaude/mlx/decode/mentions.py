"""Tells the markers that a model writes from those that it only mentions.

A marker that is a token of its own divides the answer wherever the model writes that token. The
same characters in ordinary tokens may be a mention: in a code block, between backquotes, inside
thinking, or behind a marker that the model wrote as a token.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from anyclaude.mlx.decode.markers import Mode, Transition

# Fences and code spans of CommonMark, sections 4.5 and 6.1; fences may be in lists and quotations.
_FENCE: Final = re.compile(r"[\s>]*(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)")
_LANGUAGE: Final = re.compile(r"[\w.+#-]+")
_BACKQUOTES: Final = re.compile(r"`+")


class Mentions:
    """Follows one answer.

    Args:
        tokens: the markers that are tokens of their own, with their token ids.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self._tokens = tokens
        self._markers = {token: marker for marker, token in tokens.items()}
        # The markers that came as tokens and whose text was not found yet.
        self._came: set[str] = set()
        # Whether the model writes markers as tokens.
        self._writes_tokens = False
        # Whether the latest marker that was no mention came as a token.
        self.was_token = False
        self._code = {Mode.TEXT: _Code(), Mode.THINKING: _Code()}

    @property
    def in_fence(self) -> bool:
        """Whether the text so far ends inside a code block."""
        return self._code[Mode.TEXT].in_fence

    def observe(self, token_id: int) -> None:
        """Processes the next token, before its text is scanned."""
        if marker := self._markers.get(token_id):
            self._came.add(marker)
            self._writes_tokens = True

    def add_text(self, mode: Mode, text: str) -> None:
        """Processes text of the answer, or of its thinking."""
        self._code[mode].add(text)

    def enter(self, mode: Mode) -> None:
        """Processes a marker that began a mode."""
        if mode is Mode.THINKING:
            self._code[mode] = _Code()
        elif mode is Mode.CALL:
            # What follows a call is not on the line before it.
            self._code[Mode.TEXT].add("\n")

    def is_token(self, marker: str) -> bool:
        return marker in self._tokens

    def is_mention(self, transition: Transition, mode: Mode, before: str) -> bool:
        """Whether a marker is text, after the text `before`."""
        marker = transition.marker
        self.was_token = marker in self._came
        if self.was_token:
            self._came.discard(marker)
            return False
        if mode not in self._code:
            return False
        is_token, in_code = self.is_token(marker), self._code[mode].is_open_after(before)
        if transition.to is Mode.CALL:
            return in_code or (is_token and mode is Mode.THINKING)
        if mode is Mode.THINKING:
            # Without a token for the end, code that is never closed would be the whole answer.
            return is_token and (self._writes_tokens or in_code)
        return in_code or (is_token and self._writes_tokens)


class _Code:
    """Follows the code blocks, the backquotes and the quotations of a text."""

    def __init__(self, fences: Sequence[str] = (), line: str = "") -> None:
        # The fences of the open code blocks; models nest them without making the outer one longer.
        self._fences = list(fences)
        self._line = line

    @property
    def in_fence(self) -> bool:
        return bool(self._fences)

    def add(self, text: str) -> None:
        *lines, rest = (self._line + text).split("\n")
        for line in lines:
            if found := _FENCE.fullmatch(line):
                self._pass(found["fence"], found["info"].strip())
        self._line = rest

    def _pass(self, fence: str, info: str) -> None:
        if self.in_fence and not fence.startswith(self._fences[-1]):
            return
        if not self.in_fence or _LANGUAGE.fullmatch(info):
            self._fences.append(fence)
        else:
            self._fences.pop()

    def is_open_after(self, text: str) -> bool:
        """Whether code or a quoted line is open behind `text`, which follows what was added."""
        seen = _Code(self._fences, self._line)
        seen.add(text)
        if _FENCE.fullmatch(seen._line):
            seen.add("\n")
        return seen.in_fence or seen._in_quote()

    def _in_quote(self) -> bool:
        opened = ""
        for run in _BACKQUOTES.findall(self._line):
            opened = "" if run == opened else opened or run
        return bool(opened) or self._line.lstrip().startswith(">")
