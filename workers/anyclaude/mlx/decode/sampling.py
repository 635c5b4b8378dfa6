"""Choosing the next token: samplers, and the budget that ends thinking.

A sampler takes one step's log-probabilities, of shape `[..., vocabulary]`, and returns token ids of
shape `[...]`. Generation runs one step ahead: when a step's token is sampled, the answer may not
have seen the tokens before it yet.
"""

from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Final

import mlx.core as mx
from anyclaude.mlx.adapter import Sampler, library_sampler, read_token

_SEEDS: Final = 1 << 64


def make_sampler(
    temperature: float,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
) -> Sampler:
    """A sampler that filters by `top_p`, `min_p` and `top_k`, and then applies the temperature.

    Args:
        temperature: 0 always takes the most likely token, whatever the other arguments are.
        top_p: keeps the most likely tokens whose probabilities add up to it. None or 1 keeps all
            tokens; 0, which the Messages API allows, keeps only the most likely one.
        top_k: keeps so many tokens; None or 0 keeps all.
        min_p: keeps the tokens that are at least so likely as a share of the most likely one; None
            or 0 keeps all.
    """
    if temperature == 0 or top_p == 0:
        greedy: Sampler = library_sampler(temp=0.0)
        return greedy
    filtered = partial(library_sampler, temp=temperature, top_p=top_p or 0.0, min_p=min_p or 0.0)
    nucleus: Sampler = filtered()
    if not top_k:
        return nucleus
    limited: Sampler = filtered(top_k=top_k)

    def sample(logprobs: mx.array) -> mx.array:
        # mlx-lm refuses a limit that is not below the size of the vocabulary.
        return (limited if top_k < logprobs.shape[-1] else nucleus)(logprobs)

    return sample


def seeded(inner: Sampler, seed: int, position: int) -> Sampler:
    """A sampler whose choices depend on the seed and each token's position in the answer alone.

    So other requests do not change an answer, and another process can continue it.

    Args:
        inner: uses MLX's global random state. It is called at most once for each token.
        seed: of the answer.
        position: of the first token that is sampled.
    """
    positions = count(position)

    def sample(logprobs: mx.array) -> mx.array:
        mx.random.seed((seed + next(positions)) % _SEEDS)
        return inner(logprobs)

    return sample


class ThinkingBudget:
    """Ends the thinking of one answer after so many tokens. Used on the MLX thread only.

    When the budget is used up, the sampler returns the tokens of the end marker instead of sampled
    ones. The model may just have begun the end marker itself, so close to the end of the budget
    the sampled tokens that the answer has not seen yet are read from the device.

    Args:
        tokens: the budget.
        end: the tokens of the end marker.
        in_thinking: whether the prompt has already opened the thinking block.
    """

    def __init__(self, tokens: int, end: Sequence[int], *, in_thinking: bool) -> None:
        assert end
        self._left = tokens
        self._end = tuple(end)
        self._thinking = in_thinking
        # Tokens that were sampled, and that `observe` has not been called with yet.
        self._unseen: deque[mx.array] = deque()
        self._last: deque[int] = deque(maxlen=len(self._end))
        # The tokens that are left of an end marker begun here; None if none was begun.
        self._ending: deque[int] | None = None

    def sampler(self, inner: Sampler) -> Sampler:
        """A sampler that samples with `inner` until the budget is used up."""

        def sample(logprobs: mx.array) -> mx.array:
            forced = self._forced()
            token = inner(logprobs) if forced is None else mx.array([forced])
            self._unseen.append(token)
            return token

        return sample

    def observe(self, token_id: int, *, thinking: bool) -> None:
        """Counts the answer's next token.

        Args:
            thinking: whether the thinking goes on after the token.
        """
        if self._unseen:
            self._unseen.popleft()
        elif self._forced() not in (None, token_id):
            # An earlier process sampled the token, which did not have to end the thinking there.
            self._ending = None
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
        recent, size = (*self._last, *map(read_token, self._unseen)), len(self._end)
        if any(recent[at : at + size] == self._end for at in range(len(recent))):
            return False
        # How late tokens are observed must not change the answer, so as many always count.
        return self._end[0] not in recent[-size:]
