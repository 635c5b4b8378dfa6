"""Ends thinking that has used up its budget: the end marker is put where the next token would be.

Generation runs a step ahead, so some tokens are sampled here and not yet known to the answer. Near
the end of the budget they are read, since the model may just have ended its thinking itself.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

Sampler = Callable[[mx.array], mx.array]


class ThinkingBudget:
    """One answer's; used on the MLX thread only.

    Args:
        tokens: how many may be thought.
        end: the end marker's tokens.
        in_thinking: the prompt has already opened the thinking block.
    """

    def __init__(self, tokens: int, end: Sequence[int], *, in_thinking: bool) -> None:
        assert end
        self._left = tokens
        self._end = tuple(end)
        self._thinking = in_thinking
        # Sampled, and not yet told by `observe`.
        self._unseen: deque[mx.array] = deque()
        self._last: deque[int] = deque(maxlen=len(self._end))
        # What is still to come of an end marker that was begun here; None when none was.
        self._ending: deque[int] | None = None

    def sampler(self, inner: Sampler) -> Sampler:
        """`inner`, until the budget is used up."""

        def sample(logprobs: mx.array) -> mx.array:
            forced = self._forced()
            token = inner(logprobs) if forced is None else mx.array([forced])
            self._unseen.append(token)
            return token

        return sample

    def observe(self, token_id: int, *, thinking: bool) -> None:
        """Takes the answer's next token, and whether thinking goes on behind it."""
        if self._unseen:
            self._unseen.popleft()
        self._last.append(token_id)
        self._left -= thinking
        self._thinking = thinking
        if not thinking:
            self._ending = None

    def _forced(self) -> int | None:
        if self._ending is None and self._is_used_up():
            self._ending = deque(self._end)
        return self._ending.popleft() if self._ending else None

    def _is_used_up(self) -> bool:
        if not self._thinking or self._left > len(self._unseen):
            return False
        return self._end[0] not in (*self._last, *map(_read, self._unseen))


def _read(token: mx.array) -> int:
    value: Any = token.item()
    return int(value)
