"""Constrained decoding overlaps: the device computes the next pass while the mask is made."""

import functools
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import mlx.core as mx
import pytest

from anyclaude.mlx.adapter import make_prompt_cache
from anyclaude.mlx.decode import make_sampler
from anyclaude.mlx.decode.constraint import ConstraintCompiler, masks
from anyclaude.mlx.decode.constraint.masks import Constraint, expanded, only_token
from anyclaude.mlx.engine.decoding import Decoding
from anyclaude.mlx.kv.live import LiveCache
from tests.models import tiny
from tests.models.claude_tools import tools
from tests.models.constrained_answers import ANY, VOCABULARY
from tests.models.families import CONSTRAINED, tokenizer

TOKENS = 60


def constraint(family: str) -> Constraint:
    """The grammar of a call of any of Claude Code's tools, active from the first token."""
    compiled = _compiler(family).compile(tools(), ANY, None, in_thinking=False, may_think=False)
    assert compiled is not None
    return compiled.constraint


@functools.cache
def _compiler(family: str) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer(family))


@functools.cache
def _model() -> Any:
    # The first call compiles mlx-lm's sampler, and draws other numbers than later calls.
    make_sampler(1.0)(mx.zeros((1, VOCABULARY)))
    return tiny.build(tiny.Family.DENSE, VOCABULARY)


def overlapped(model: Any, held: Constraint, first: int) -> Iterator[int]:
    """A constrained answer as the engine decodes it."""
    sampler = held.sampler(make_sampler(1.0), needs_probabilities=False)
    live = LiveCache.empty(_model(), kv_bits=0, max_checkpoints=1)
    for token in Decoding(model, live, sampler).tokens(first, TOKENS):
        # After each pass there is a None.
        if token is not None:
            held.observe(token)
            yield token


def in_turn(held: Constraint, last: int) -> Iterator[int]:
    """The same answer, a step after the other: nothing is computed before the token is read."""
    inner, layers = make_sampler(1.0), make_prompt_cache(_model())
    for _ in range(TOKENS):
        logits = _model()(mx.array([[last]]), cache=layers)[:, -1, :]
        logprobs = logits - mx.logsumexp(logits, keepdims=True)
        mask = held.mask()
        only = only_token(mask)
        allowed = mx.where(expanded(mask, VOCABULARY), logprobs, -mx.inf)
        last = int(inner(allowed).item()) if only is None else only
        held.observe(last)
        yield last


@pytest.mark.parametrize("family", CONSTRAINED)
def test_overlapped_answers_are_equal(family: str) -> None:
    """Token for token, an overlapped answer is that of a plain loop that waits in each step."""
    model, ends = _model(), _compiler(family).eos_token_ids
    first = random.Random(family).randrange(256)
    mx.random.seed(1)
    answer = list(_until(ends, overlapped(model, constraint(family), first)))
    mx.random.seed(1)
    assert answer == list(_until(ends, in_turn(constraint(family), first)))
    assert len(answer) > 10


def test_the_next_pass_is_submitted_before_the_token_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Inside a grammar, every read of a token comes after the next pass went to the device."""
    events: list[str] = []
    submit, read = mx.async_eval, masks.read_token

    def forward(*args: Any, **named: Any) -> Any:
        events.append("forward")
        return _model()(*args, **named)

    def submitted(*arrays: mx.array) -> None:
        events.append("submit")
        submit(*arrays)

    def was_read(token: mx.array) -> int:
        events.append("read")
        return read(token)

    monkeypatch.setattr(mx, "async_eval", submitted)
    monkeypatch.setattr(masks, "read_token", was_read)
    assert list(overlapped(forward, constraint("json_tools"), 7))
    assert events.count("read") > 10
    assert all(before == "submit" for before, event in pairwise(events) if event == "read")
    steps = "".join(event[0] for event in events)
    # A step inside the grammar: the pass is built and submitted, the token read, the next one
    # sampled and submitted.
    assert "fsrs" in steps
    assert "fr" not in steps


def test_masks_are_expanded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that comes again is used as the array that it was made into."""
    made: list[bytes] = []

    def counted(mask: masks.Mask, vocabulary: int) -> mx.array:
        made.append(mask.tobytes())
        return expanded(mask, vocabulary)

    monkeypatch.setattr(masks, "expanded", counted)
    assert list(overlapped(_model(), constraint("json_tools"), 7))
    assert len(made) == len(set(made)) > 0


def _until(ends: frozenset[int], tokens: Iterator[int]) -> Iterator[int]:
    """The tokens up to the end of the answer, behind which the grammar allows anything."""
    for token in tokens:
        if token in ends:
            return
        yield token
