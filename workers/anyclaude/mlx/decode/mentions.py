"""Tells the markers that a model writes from those that it only mentions.

A marker that is a token of its own divides the answer wherever the model writes that token. The
same characters in ordinary tokens may be a mention: in a code block, between backquotes, inside
thinking, or behind a marker that the model wrote as a token.
"""

from collections.abc import Mapping

from anyclaude.mlx.decode.markers import Mode, Transition

_FENCE = "```"


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
    """Follows the code blocks and the backquotes of a text."""

    def __init__(self, *, in_fence: bool = False, line: str = "") -> None:
        self.in_fence = in_fence
        self._line = line

    def add(self, text: str) -> None:
        *lines, rest = (self._line + text).split("\n")
        for line in lines:
            self.in_fence ^= line.lstrip().startswith(_FENCE)
        self._line = rest

    def is_open_after(self, text: str) -> bool:
        """Whether code is open behind `text`, which follows what was added."""
        seen = _Code(in_fence=self.in_fence, line=self._line)
        seen.add(text)
        return seen.in_fence or seen._line.count("`") % 2 == 1
