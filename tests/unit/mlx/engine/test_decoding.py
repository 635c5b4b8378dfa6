"""Drafts change how many tokens a pass gives, and nothing else.

A drafter that knows the answer proposes its continuation with random mistakes, so each pass accepts
another number of drafts. Compared are the tokens, and the cache that is left.
"""

import functools
import random
from collections import Counter
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from anyclaude.mlx.adapter import Sampler
from anyclaude.mlx.decode import make_sampler
from anyclaude.mlx.engine.decoding import Decoding
from anyclaude.mlx.engine.drafts import Drafter, DraftLimits, PassCosts
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.tokens import TokenArray
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import words

VOCABULARY = 300
TOKENS = 24
# 203 runs in all.
RUNS = 29
CACHES = [*((family, 0) for family in tiny.Family), (tiny.Family.WIDE, 8), (tiny.Family.WIDE, 4)]


class Knowing(Drafter):
    """Drafts the answer's continuation, in which each token is wrong at the given rate."""

    def __init__(self, prompt: Sequence[int], answer: Sequence[int], mistakes: float, seed: int):
        super().__init__(DraftLimits(15, 1), PassCosts())
        self._text, self._mistakes = [*prompt, *answer], mistakes
        self._rng = random.Random(seed)
        self.is_promising = True

    def observe(self, token_ids: TokenArray) -> None:
        assert token_ids.tolist() == self._text[: len(token_ids)]

    def drafts(
        self, token_ids: TokenArray, last: int, most: int, token_cost: float = 1.0
    ) -> list[int]:
        assert last == self._text[len(token_ids)]
        begin, count = len(token_ids) + 1, self._rng.randrange(most + 1)
        drafts = self._text[begin : begin + min(count, self._rng.choice([1, 3, 15]))]
        return [(d + (self._rng.random() < self._mistakes)) % VOCABULARY for d in drafts]


class Run:
    """One answer of a tiny model."""

    def __init__(self, family: tiny.Family, kv_bits: int, prompt: list[int]) -> None:
        self.model = _model(family)
        self.live = LiveCache.empty(self.model, kv_bits=kv_bits, max_checkpoints=4)
        self.prompt = prompt
        before = self.model(mx.array([prompt[:-1]]), cache=self.live.layers)
        self.logits = before[0, -1]
        self.live.tokens.extend(prompt[:-1])

    def answer(
        self, sampler: Sampler, drafter: Drafter | None = None, tokens: int = TOKENS
    ) -> list[int]:
        self.decoding = Decoding(self.model, self.live, sampler, drafter)
        said: list[int] = []
        for token in self.decoding.tokens(self.prompt[-1], tokens):
            if token is None:
                prompt = self.prompt if self.decoding.passes else self.prompt[:-1]
                assert self.live.tokens.ids.tolist() == prompt + said
            else:
                said.append(token)
        return said

    def behind(self, probe: Sequence[int]) -> np.ndarray:
        """The logits of tokens that continue the cache."""
        return np.array(self.model(mx.array([probe]), cache=self.live.layers).astype(mx.float32))


@functools.cache
def _model(family: tiny.Family) -> Any:
    # The first call compiles mlx-lm's sampler, and draws other numbers than later calls.
    for sampler in (make_sampler(1.0), make_sampler(0.8, 0.9, 40)):
        sampler(mx.zeros((1, VOCABULARY)))
    return tiny.build(family, VOCABULARY)


@pytest.mark.parametrize(("family", "kv_bits"), CACHES)
def test_greedy_answers_and_caches_are_equal_with_drafts(family: tiny.Family, kv_bits: int) -> None:
    """Tokens, and the logits behind the kept cache, are those of a run without drafts, bit by bit.

    Prompts and answers pass the sliding windows of 32 tokens.
    """
    greedy, saved = make_sampler(0.0), 0
    for seed in range(RUNS):
        rng = random.Random(seed)
        prompt, probe = words(rng, rng.randrange(2, 90)), words(rng, 5)
        plain, drafted = Run(family, kv_bits, prompt), Run(family, kv_bits, prompt)
        answer = plain.answer(greedy)
        knowing = Knowing(prompt, answer, rng.choice([0.0, 0.1, 0.5]), seed)
        assert drafted.answer(greedy, knowing) == answer
        assert drafted.live.tokens.ids.tolist() == prompt + answer
        assert np.array_equal(drafted.behind(probe), plain.behind(probe)), f"seed {seed}"
        saved += plain.decoding.counts.passes - drafted.decoding.counts.passes
    assert saved > RUNS * TOKENS / 4


@pytest.mark.parametrize("family", [tiny.Family.DENSE, tiny.Family.HYBRID])
def test_sampled_answers_are_those_of_the_seed(family: tiny.Family) -> None:
    """With the same seed, the same answer is sampled with and without drafts."""
    sampler = make_sampler(0.8, 0.9, 40)
    for seed in range(20):
        prompt = words(random.Random(seed), 20)
        plain, drafted = Run(family, 0, prompt), Run(family, 0, prompt)
        mx.random.seed(seed)
        answer = plain.answer(sampler)
        mx.random.seed(seed)
        assert drafted.answer(sampler, Knowing(prompt, answer, 0.3, seed)) == answer
        assert drafted.decoding.counts.accepted_tokens > 0
        assert drafted.decoding.counts.drafted_tokens > drafted.decoding.counts.accepted_tokens


class Insisting(Drafter):
    """Always drafts the same token."""

    def __init__(self, token: int) -> None:
        super().__init__(DraftLimits(1, 1), PassCosts())
        self._token = token
        self.is_promising = True

    def observe(self, token_ids: TokenArray) -> None:
        """Learns nothing."""

    def drafts(
        self, token_ids: TokenArray, last: int, most: int, token_cost: float = 1.0
    ) -> list[int]:
        return [self._token][:most]


@pytest.mark.parametrize("rank", [0, 3])
def test_the_token_behind_a_draft_has_the_models_distribution(rank: int) -> None:
    """Whether a likely or an unlikely token is drafted, each comes as often as it should."""
    prompt, samples, temperature = words(random.Random(3), 12), 400, 3.0
    greedy, drawn = make_sampler(0.0), make_sampler(temperature)
    first = Run(tiny.Family.DENSE, 0, prompt).answer(greedy, tokens=1)
    logits = Run(tiny.Family.DENSE, 0, [*prompt, *first, 0]).logits
    expected = samples * np.array(mx.softmax(logits / temperature))
    drafted = int(np.argsort(-expected)[rank])
    mx.random.seed(11)
    seen: Counter[int] = Counter()
    for _ in range(samples):
        samplers = chain([greedy], repeat(drawn))
        run = Run(tiny.Family.DENSE, 0, prompt)
        _, second = run.answer(
            lambda logprobs, samplers=samplers: next(samplers)(logprobs), Insisting(drafted), 2
        )
        seen[second] += 1
    assert seen[drafted]
    common = [token for token in range(VOCABULARY) if expected[token] >= 5]
    pairs = [(seen[token], expected[token]) for token in common]
    pairs.append((samples - sum(s for s, _ in pairs), samples - sum(e for _, e in pairs)))
    chi = sum((count - wanted) ** 2 / max(wanted, 1) for count, wanted in pairs)
    # Four standard deviations above the mean of the chi-squared distribution.
    assert chi < len(common) + 4 * (2 * len(common)) ** 0.5
