"""The tokens with which the prompt of a next question begins, known before it is asked."""

import functools

import pytest

from anyclaude.messages.requests import Message
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.tokens import common_prefix
from tests.models.requests import (
    BASH,
    Block,
    assistant,
    call,
    request,
    result,
    system,
    text,
    thinking,
    user,
)
from tests.models.templates import TEMPLATES
from tests.models.tokenizers import tokenizer

_THINKING: Block = {"type": "enabled", "budget_tokens": 1024}
_CLEARED: Block = {"edits": [{"type": "clear_thinking_20251015"}]}
_QUESTIONS = (
    "And now?",
    "<system-reminder>\nNote.\n</system-reminder>\nGo on.",
    "\n\nAn indented question",
    "/compact",
    "素早い茶色の狐。🦊",
)
# What a question may add beside its words: markup, and tokens that join both.
_MARKUP_TOKENS = 24


def _loop() -> list[Block]:
    return [
        user("Look around. " * 20),
        system("Be brief. " * 10),
        assistant(thinking("I had better look. " * 30), text("Looking."), call("toolu_1")),
        user(result("toolu_1", "two files " * 30)),
    ]


_ANSWER = assistant(thinking("There are two. " * 30), text("Two files. " * 5))


# Templates that write calls and their results.
_FAMILIES = sorted(TEMPLATES.keys() - {"bare", "gemma2"})


@functools.cache
def _renderer(family: str) -> PromptRenderer:
    return PromptRenderer(tokenizer(family))


@pytest.mark.parametrize("fields", [{}, {"context_management": _CLEARED}], ids=["plain", "cleared"])
@pytest.mark.parametrize("family", _FAMILIES)
def test_a_next_question_computes_its_own_words(family: str, fields: Block) -> None:
    """Prompts of very different questions begin with these tokens, and add only their own words."""
    renderer = _renderer(family)
    fields = {"tools": [BASH], "thinking": _THINKING, **fields}
    asked = request(*_loop(), **fields)
    begins = renderer.before_next_question(asked, Message(**_ANSWER))
    assert begins is not None

    for question in _QUESTIONS:
        prompt = renderer.render(request(*_loop(), _ANSWER, user(question), **fields))
        shared = common_prefix(begins.token_ids, prompt.token_ids)
        own = len(tokenizer(family).encode(question, add_special_tokens=False))
        assert shared >= len(begins.token_ids) - 2
        assert len(prompt.token_ids) - shared <= own + _MARKUP_TOKENS
        assert prompt.stable_tokens == begins.stable_tokens
        assert begins.cut_points == prompt.cut_points[: len(begins.cut_points)]


def test_nothing_of_the_trial_questions_is_kept() -> None:
    """A renderer that was asked for the beginning renders the next prompt as a new one does."""
    asked, renderer = request(*_loop(), tools=[BASH]), PromptRenderer(tokenizer("qwen3"))
    renderer.render(asked)
    renderer.before_next_question(asked, Message(**_ANSWER))

    following = request(*_loop(), _ANSWER, user("And now?"), tools=[BASH])
    warm, new = renderer.render(following), PromptRenderer(tokenizer("qwen3")).render(following)
    assert warm.token_ids.tolist() == new.token_ids.tolist()
    assert warm.cut_points == new.cut_points


def test_there_is_no_next_question_that_the_template_refuses() -> None:
    """A conversation that the template refuses has no beginning, and raises no error."""
    asked = request(assistant("I begin"))
    assert _renderer("mistral").before_next_question(asked, Message(**_ANSWER)) is None
