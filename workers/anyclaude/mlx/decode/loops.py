"""Recognises answers that repeat themselves, as those of small and quantised models often do.

Text loops if its last tokens are one sequence of tokens over and over. A file may rightly contain
many equal lines, so inside calls and code blocks more tokens must repeat than in prose. Calls loop
if the same call comes again and again without another one between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# How often the sequence must have come at least, whatever its length.
MIN_REPEATS: Final = 10
# How often the tokens are compared while so many come as a loop needs; it takes milliseconds.
_COMPARISONS: Final = 8


@dataclass(frozen=True)
class LoopLimits:
    """When an answer counts as a loop. Numbers of tokens are those that repeat."""

    prose_tokens: int = 1_500
    code_tokens: int = 12_000
    # So many equal calls in a row.
    equal_calls: int = 4


class LoopWatch:
    """Watches the tokens and the calls of one answer."""

    def __init__(self, limits: LoopLimits) -> None:
        self._limits = limits
        self._tokens: list[int] = []
        self._last_call: tuple[str, str] | None = None
        self._equal_calls = 0

    def is_loop(self, token_id: int, *, is_code: bool) -> bool:
        """Processes the next token; whether the answer is a loop now."""
        self._tokens.append(token_id)
        needed = self._limits.code_tokens if is_code else self._limits.prose_tokens
        if len(self._tokens) < needed or len(self._tokens) % max(1, needed // _COMPARISONS):
            return False
        return _period(self._tokens[-needed:]) * MIN_REPEATS <= needed

    def is_repeated(self, name: str, input_json: str) -> bool:
        """Processes the next complete call; whether the calls are a loop now."""
        call = (name, input_json)
        self._equal_calls = self._equal_calls + 1 if call == self._last_call else 1
        self._last_call = call
        return 0 < self._limits.equal_calls <= self._equal_calls


def _period(tokens: Sequence[int]) -> int:
    """The length of the shortest sequence that `tokens` repeats; its last round may be incomplete.

    It follows from the longest proper prefix that is also a suffix (Knuth, Morris and Pratt).
    """
    borders = [0] * len(tokens)
    length = 0
    for at in range(1, len(tokens)):
        while length and tokens[at] != tokens[length]:
            length = borders[length - 1]
        length += tokens[at] == tokens[length]
        borders[at] = length
    return len(tokens) - length
