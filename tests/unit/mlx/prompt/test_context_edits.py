"""Prompts of requests with context edits."""

from typing import Any

from anyclaude.messages.context_edits import CLEARED
from anyclaude.messages.requests import Message
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.tokens import common_prefix
from tests.models.requests import Block, assistant, call, request, result, thinking, user
from tests.models.tokenizers import tokenizer

_EDITS: Block = {
    "edits": [
        {"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 1}},
        {
            "type": "clear_tool_uses_20250919",
            "trigger": {"type": "input_tokens", "value": 200},
            "keep": {"type": "tool_uses", "value": 1},
        },
    ]
}


def _loop(calls: int) -> list[Block]:
    turns = [user("Look.")]
    for number in range(calls):
        asks = call(f"toolu_{number}", f"look {number}")
        turns.append(assistant(thinking(f"thought-{number}"), asks))
        turns.append(user(result(f"toolu_{number}", f"output-{number} " * 20), f"Go on {number}."))
        turns += [assistant("Done."), user(f"Question {number}?")]
    return turns


def _said(prompt: Prompt) -> str:
    return str(tokenizer("chatml").decode(prompt.token_ids))


def test_the_prompt_is_that_of_the_edited_conversation() -> None:
    """What the edits clear is gone, and the counts are those of the model's tokenizer."""
    renderer = PromptRenderer(tokenizer("chatml"))
    whole = renderer.render(request(*_loop(3)))
    edited = renderer.render(request(*_loop(3), context_management=_EDITS))
    said = _said(edited)

    assert ["output-0" in said, "output-1" in said, "output-2" in said] == [False, False, True]
    assert said.count(CLEARED) == 2
    assert "thought-1" not in said
    assert sum(edit.cleared_input_tokens for edit in edited.applied_edits) == len(
        renderer.render(_keeping_all()).token_ids
    ) - len(edited.token_ids)
    assert len(whole.token_ids) > len(edited.token_ids)
    again = PromptRenderer(tokenizer("chatml")).render(
        request(*_loop(3), context_management=_EDITS)
    )
    assert list(again.token_ids) == list(edited.token_ids)


def _keeping_all() -> Any:
    keep = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    return request(*_loop(3), context_management=keep)


def test_the_next_question_is_computed_ahead_of_the_edited_conversation() -> None:
    """What is computed ahead is the start of the next request's own prompt."""
    renderer = PromptRenderer(tokenizer("chatml"))
    turns = _loop(3)
    asked = request(*turns, context_management=_EDITS)
    answer = Message(role="assistant", content="Fine.")
    ahead = renderer.before_next_question(asked, answer)
    following = [*turns, assistant("Fine."), user("What else?")]
    prompt = renderer.render(request(*following, context_management=_EDITS))

    assert ahead is not None
    assert common_prefix(ahead.token_ids, prompt.token_ids) == len(ahead.token_ids)
