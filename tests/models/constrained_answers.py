"""Answers of a model with random weights, constrained to tools: from prompt to blocks."""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.decode import BlockStream, ThinkingBudget, make_sampler
from anyclaude.mlx.decode.constraint import ConstraintCompiler
from anyclaude.mlx.decode.constraint.masks import Mask, tokens_of
from anyclaude.mlx.engine.drafts import PassCosts
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.tokens import token_array
from anyclaude.runtime.settings import MlxSettings
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.models import tiny
from tests.models.families import tokenizer

# Large enough for the tokenizer of every family.
VOCABULARY = 320
ANY = ToolChoice(type="any", disable_parallel_tool_use=True)


@dataclass(frozen=True)
class ConstrainedAnswer:
    events: list[pb.GenerateResponse]

    @property
    def stop_reason(self) -> pb.StopReason:
        return self.events[-1].finished.stop_reason

    @property
    def blocks(self) -> list[pb.GenerateResponse]:
        kinds = ("block_start", "block_delta", "block_stop")
        return [event for event in self.events if event.WhichOneof("event") in kinds]

    @property
    def ended_calls(self) -> int:
        """The number of calls that a client would run, because their blocks ended."""
        return sum(event.HasField("block_stop") for event in self.events)


class Generator:
    """Generates answers of one family."""

    def __init__(
        self,
        family: str,
        *,
        thinking: bool = False,
        settings: MlxSettings = MlxSettings(),  # noqa: B008 - frozen
        pass_costs: PassCosts | None = None,
    ) -> None:
        self.wrapper = tokenizer(family, thinking=thinking)
        self._compiler = ConstraintCompiler(self.wrapper)
        model = _model()
        limits = StoreLimits(1 << 28, min_prefix_tokens=0)
        self._engine = Engine(
            model,
            KVStore(model, limits),
            settings,
            eos_token_ids=self._compiler.eos_token_ids,
            pass_costs=pass_costs,
        )

    def answer(
        self,
        offered: Sequence[Tool],
        seed: int,
        *,
        choice: ToolChoice = ANY,
        max_tokens: int = 2000,
        may_think: bool = False,
        thinking_tokens: int | None = None,
    ) -> ConstrainedAnswer:
        """
        Args:
            may_think: whether the answer may begin with thinking.
            thinking_tokens: if given, the prompt has opened a thinking block, which ends after so
                many tokens.
        """
        rng = random.Random(seed)
        mx.random.seed(seed)
        in_thinking = thinking_tokens is not None
        grammar = self._compiler.compile(
            offered, choice, None, in_thinking=in_thinking, may_think=may_think
        )
        sampler, budget = make_sampler(1.0), None
        if thinking_tokens is not None:
            end = self.wrapper.think_end_tokens
            budget = ThinkingBudget(thinking_tokens, end, in_thinking=True)
            sampler = budget.sampler(sampler)
        events: list[pb.GenerateResponse] = []
        self._engine.submit(
            Job(
                request_id=str(seed),
                lineage=LineageKey(str(seed), "", ""),
                token_ids=token_array([rng.randrange(256) for _ in range(8)]),
                marks=(),
                stable_tokens=0,
                max_tokens=max_tokens,
                window_limited=False,
                sampler=grammar.constraint.sampler(sampler) if grammar else sampler,
                new_blocks=lambda: BlockStream(
                    self.wrapper,
                    offered,
                    [],
                    tool_choice=choice,
                    in_thinking=in_thinking,
                    grammar=grammar,
                    budget=budget,
                    max_tokens=max_tokens,
                ),
                emit=events.append,
                guide=grammar.constraint if grammar else None,
                keep=False,
            )
        )
        while not (events and events[-1].WhichOneof("event") in ("finished", "failed")):
            self._engine.step()
        assert events[-1].HasField("finished"), events[-1]
        return ConstrainedAnswer(events)


def tokens_in(mask: Mask) -> set[int]:
    """The ids of the tokens that a mask allows."""
    return set(tokens_of(mask))


@functools.cache
def _model() -> Any:
    return tiny.build(tiny.Family.DENSE, VOCABULARY)
