"""A constraint whose first tokens were sampled by an earlier process."""

from anyclaude.messages.requests import ToolChoice
from anyclaude.mlx.decode.constraint import ConstraintCompiler
from tests.models.answers import BASH
from tests.models.constrained_answers import tokens_in
from tests.models.families import tokenizer


def test_thinking_begins_only_with_the_first_token_of_the_answer() -> None:
    """Where an answer may begin with thinking, one that is continued may not."""
    wrapper = tokenizer("json_tools", thinking=True)
    grammar = ConstraintCompiler(wrapper).compile(
        [BASH], ToolChoice(type="any"), None, in_thinking=False, may_think=True
    )
    assert grammar is not None
    thinking = wrapper.think_start_tokens[0]
    first = tokens_in(grammar.constraint.mask())
    assert thinking in first

    grammar.constraint.observe(min(first - {thinking}))
    assert thinking not in tokens_in(grammar.constraint.mask())
