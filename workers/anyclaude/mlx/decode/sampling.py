"""Samplers: from one step's log-probabilities to a token.

`temperature` 0 is argmax whatever the other parameters say. Filters run before the temperature, as
mlx-lm does it: top-p, then top-k.
"""

from collections.abc import Callable

import mlx.core as mx
from anyclaude.mlx.adapter import library_sampler

Sampler = Callable[[mx.array], mx.array]


def make_sampler(
    temperature: float, top_p: float | None = None, top_k: int | None = None
) -> Sampler:
    """A callable from log-probabilities `[..., vocabulary]` to token ids `[...]`.

    Args:
        temperature: 0 takes the likeliest token.
        top_p: keeps the likeliest tokens whose mass reaches it; None or 1 keeps all, and 0, which
            the Messages API allows, keeps the likeliest alone.
        top_k: keeps that many tokens; None or 0 keeps all.
    """
    if temperature == 0 or top_p == 0:
        greedy: Sampler = library_sampler(temp=0.0)
        return greedy
    nucleus: Sampler = library_sampler(temp=temperature, top_p=top_p or 0.0)
    if not top_k:
        return nucleus
    limited: Sampler = library_sampler(temp=temperature, top_p=top_p or 0.0, top_k=top_k)

    def sample(logprobs: mx.array) -> mx.array:
        # mlx-lm refuses a limit that is not below the vocabulary's size.
        return (limited if top_k < logprobs.shape[-1] else nucleus)(logprobs)

    return sample
