"""Samplers: temperature 0 takes the most likely token, and filters limit what is drawn."""

import mlx.core as mx
import pytest

from anyclaude.mlx.decode import make_sampler

# Probabilities of four tokens; the likeliest is not the first.
LOGPROBS = mx.log(mx.array([[0.2, 0.5, 0.25, 0.05]]))


def _drawn(
    temperature: float,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
) -> set[int]:
    mx.random.seed(7)
    sampler = make_sampler(temperature, top_p, top_k, min_p)
    return set(sampler(mx.repeat(LOGPROBS, 500, axis=0)).tolist())


@pytest.mark.parametrize(("top_p", "top_k"), [(None, None), (0.9, None), (1.0, 3), (None, 99)])
def test_temperature_zero_is_argmax(top_p: float | None, top_k: int | None) -> None:
    """At temperature 0 the other parameters do not matter, and the shape is that of the input."""
    token = make_sampler(0, top_p, top_k)(LOGPROBS)
    assert token.shape == (1,)
    assert token.item() == 1


@pytest.mark.parametrize(
    ("top_p", "top_k", "tokens"),
    [
        (None, None, {0, 1, 2, 3}),
        (1.0, 0, {0, 1, 2, 3}),
        (0.0, None, {1}),
        (0.4, None, {1}),
        (0.7, None, {1, 2}),
        (None, 1, {1}),
        (None, 3, {0, 1, 2}),
        (None, 4, {0, 1, 2, 3}),
        (None, 1000, {0, 1, 2, 3}),
        (0.7, 3, {1, 2}),
        (0.9, 1, {1}),
    ],
)
def test_filters_keep_the_likeliest(
    top_p: float | None, top_k: int | None, tokens: set[int]
) -> None:
    """Exactly the tokens that `top_p` and `top_k` keep are drawn."""
    assert _drawn(1.0, top_p, top_k) == tokens


def test_temperature_flattens() -> None:
    """A high temperature draws the unlikely token more often than a low one."""

    def share(temperature: float) -> float:
        mx.random.seed(7)
        drawn = make_sampler(temperature)(mx.repeat(LOGPROBS, 2000, axis=0))
        return float((drawn == 3).mean().item())

    assert share(0.5) < share(1.0) < share(2.0)


@pytest.mark.parametrize(("min_p", "tokens"), [(None, {0, 1, 2, 3}), (0.3, {0, 1, 2}), (0.9, {1})])
def test_min_p_keeps_what_is_nearly_as_likely(min_p: float | None, tokens: set[int]) -> None:
    """Exactly the tokens are drawn that are so likely as a share of the most likely one."""
    assert _drawn(1.0, min_p=min_p) == tokens
