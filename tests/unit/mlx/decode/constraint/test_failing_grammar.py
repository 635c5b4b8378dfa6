"""A grammar that reaches a limit while an answer is written does not end the answer."""

import itertools
from typing import Any

import mlx.core as mx
import pytest
import structlog

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.decode import BlockStream
from anyclaude.mlx.decode.constraint import AnswerGrammar, ConstraintCompiler, ReadingError
from anyclaude.runtime.settings import GrammarSettings
from tests.models.answers import Block, read_blocks
from tests.models.constrained_answers import VOCABULARY
from tests.models.families import encode, tokenizer
from tests.models.odd_schemas import STRING, obj
from tests.models.written_calls import written_call

# A pattern that compiles, and is too large once its value is written.
LARGE = Tool(name="Large", input_schema=obj("t", t={**STRING, "pattern": r"^(\S{1,40}\s?){1,24}$"}))
FAMILIES = ["json_tools", "qwen3_coder", "glm47", "pythonic", "gemma4"]
# The value is longer than what is written before the limit is reached.
ARGUMENTS = {"t": "some words that are long enough to reach the limit of the grammar, and more"}


def compiler(family: str) -> ConstraintCompiler:
    # With a single token, the trial does not find out what the grammar costs.
    limits = GrammarSettings(token_steps=3000, trial_tokens=1)
    return ConstraintCompiler(tokenizer(family), limits)


def grammar(made_by: ConstraintCompiler) -> AnswerGrammar:
    made = made_by.compile(
        [LARGE], ToolChoice(type="any"), None, in_thinking=False, may_think=False
    )
    assert made is not None
    return made


def argmax(logprobs: mx.array) -> mx.array:
    return mx.argmax(logprobs, axis=-1)


def answer(
    family: str, made: AnswerGrammar, text: str, *, max_tokens: int | None = None
) -> list[Block]:
    """The blocks of an answer whose model wants to write `text` and follows every mask."""
    wrapper = tokenizer(family)
    choice = ToolChoice(type="any")
    stream = BlockStream(
        wrapper, [LARGE], [], tool_choice=choice, grammar=made, max_tokens=max_tokens
    )
    events: list[Any] = []
    for token in encode(wrapper, text):
        wanted = mx.zeros((1, VOCABULARY))
        wanted[0, token] = 1
        sampler = made.constraint.sampler(argmax, needs_probabilities=False)
        assert int(sampler(wanted).item()) == token, wrapper.decode([token])
        events += stream.push(token)
    return list(read_blocks([*events, *stream.finish(cut=False)]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rest_of_the_call_is_free(family: str) -> None:
    """The call is read whole, the failure is logged once, and nothing of the answer is logged."""
    made = grammar(compiler(family))
    with structlog.testing.capture_logs() as logs:
        (block,) = answer(family, made, written_call(tokenizer(family), "Large", ARGUMENTS))
    assert (block.name, block.input) == ("Large", ARGUMENTS)
    assert [log["event"] for log in logs] == ["grammar_lost"]
    assert logs[0]["reason"] == "too large to be enforced"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_no_call_any_more_is_not_made(family: str) -> None:
    """If the model then stops in the middle, no call is made: the model is told, or it fails.

    It fails if parts of the call were sent, so that the client asks again.
    """
    whole = written_call(tokenizer(family), "Large", ARGUMENTS)
    cut = whole[: whole.index("more")]
    (block,) = answer(family, grammar(compiler(family)), cut, max_tokens=300)
    assert block.name == "unreadable_call_of_Large"
    assert "could not be read" in block.input["error"]
    with pytest.raises(ReadingError):
        answer(family, grammar(compiler(family)), cut)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_answer_starts_with_the_grammar(family: str) -> None:
    """A grammar that failed in one answer is as good as new in the next one."""
    shared = compiler(family)
    call = written_call(tokenizer(family), "Large", ARGUMENTS)
    reached = []
    for _ in range(2):
        made = grammar(shared)
        tokens = iter(encode(tokenizer(family), call))
        for at in itertools.count():
            if not made.constraint.is_active:
                reached.append(at)
                break
            made.constraint.mask()
            made.constraint.observe(next(tokens))
    assert reached[0] == reached[1] > 3
