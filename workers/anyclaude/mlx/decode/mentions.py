"""Tells the markers that a model writes from those that it only mentions.

A marker that is a token of its own divides the answer wherever the model writes that token. The
same characters in ordinary tokens may be a mention: in a code block, between backquotes, or inside
thinking.
"""

from anyclaude.mlx.decode.markers import Mode, Transition

_FENCE = "```"


class Mentions:
    """Follows one answer.

    Args:
        start_token: the token that begins a call; None if the marker is not one token.
    """

    def __init__(self, start_token: int | None) -> None:
        self._start_token = start_token
        # Whether the start token came, and its text was not found yet.
        self._token_came = False
        # Whether the text so far ends inside a code block.
        self.in_fence = False
        self._line = ""

    def observe(self, token_id: int) -> None:
        """Processes the next token, before its text is scanned."""
        self._token_came = self._token_came or token_id == self._start_token

    def add_text(self, text: str) -> None:
        """Processes text of the answer."""
        *lines, rest = (self._line + text).split("\n")
        for line in lines:
            self.in_fence ^= line.lstrip().startswith(_FENCE)
        self._line = rest

    def is_mention(self, transition: Transition, mode: Mode, before: str) -> bool:
        """Whether a marker that begins a call is text, after the text `before`."""
        if transition.to is not Mode.CALL:
            return False
        written, self._token_came = self._token_came, False
        if written:
            return False
        if mode is Mode.THINKING:
            return self._start_token is not None
        return mode is Mode.TEXT and self._is_inside_code(before)

    def _is_inside_code(self, before: str) -> bool:
        seen = Mentions(None)
        seen.in_fence, seen._line = self.in_fence, self._line
        seen.add_text(before)
        return seen.in_fence or seen._line.count("`") % 2 == 1
