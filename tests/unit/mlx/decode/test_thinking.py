"""The budget that ends thinking."""

from collections.abc import Sequence

import mlx.core as mx
import pytest

from anyclaude.messages.requests import ToolChoice
from anyclaude.mlx.decode import ThinkingBudget
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.models.answers import read_blocks
from tests.models.claude_tools import tools
from tests.models.constrained_answers import Generator

FREE = ToolChoice(type="auto")
END = (7, 8)


def sampled(
    tokens: int, model: Sequence[int], *, in_thinking: bool = True, late: int = 1
) -> list[int]:
    """The tokens sampled if the model would write `model`, each observed `late` steps later."""
    budget = ThinkingBudget(tokens, END, in_thinking=in_thinking)
    result: list[int] = []
    for step, token in enumerate(model):
        sample = budget.sampler(lambda _, token=token: mx.array([token]))  # type: ignore[misc]
        result.append(int(sample(mx.zeros((1, 10))).item()))
        if step >= late:
            seen = result[: step - late + 1]
            ended = any(tuple(seen[at : at + 2]) == END for at in range(len(seen)))
            budget.observe(seen[-1], thinking=in_thinking and not ended)
    return result


@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("tokens", [0, 1, 2, 5])
def test_the_end_comes_in_place_of_the_next_token(tokens: int, late: int) -> None:
    """Exactly the budget is thought, the end marker comes once, and the model continues."""
    assert sampled(tokens, [1] * 12, late=late) == [1] * tokens + [7, 8] + [1] * (10 - tokens)


@pytest.mark.parametrize("begun", range(7))
def test_what_is_observed_late_changes_nothing(begun: int) -> None:
    """The same tokens are sampled however late each is observed, which drafts change."""
    model = [1] * 12
    model[begun] = 7
    assert sampled(5, model, late=0) == sampled(5, model, late=1) == sampled(5, model, late=2)


@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("begun", [3, 4, 5])
def test_a_model_that_ends_by_itself_is_left_alone(begun: int, late: int) -> None:
    """An end marker that the model has begun, observed or not, is not written twice."""
    model = [1] * begun + [7, 8] + [1] * 6
    assert sampled(5, model, late=late) == model


def test_only_thinking_counts() -> None:
    """The budget does not limit an answer without thinking."""
    assert sampled(2, [1] * 12, in_thinking=False) == [1] * 12


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_follows_thinking_that_was_ended(seed: int) -> None:
    """With the real engine, which samples ahead, a short thinking block is followed by text."""
    generator = Generator("json_tools", thinking=True)
    answer = generator.answer([], seed, choice=FREE, max_tokens=60, thinking_tokens=9)
    thought, *others = read_blocks(answer.blocks)
    assert thought.kind == "thinking"
    # No token of this vocabulary is longer.
    assert len(thought.text) <= 9 * max(map(len, generator.wrapper.get_vocab()))
    assert others


def test_a_call_that_was_demanded_follows_thinking_that_was_ended() -> None:
    """A grammar that is active after thinking is active after thinking that the budget ended."""
    generator = Generator("json_tools", thinking=True)
    answer = generator.answer(tools(), 1, max_tokens=4000, thinking_tokens=20)
    kinds = [block.kind for block in read_blocks(answer.blocks)]
    assert kinds == ["thinking", "tool_use"]
    assert answer.stop_reason == pb.STOP_REASON_TOOL_USE
