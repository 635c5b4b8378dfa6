"""How long a prompt is at least, from its texts."""

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.messages.lengths import certain_texts, check_characters
from anyclaude.messages.requests import CountTokensRequest


def request(**fields):
    return CountTokensRequest.of({"model": "any", **fields})


CONVERSATION = [
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": "an answer that a template may shorten"},
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "result"},
            {"type": "image", "source": {"type": "base64", "data": "a" * 100}},
            {"type": "text", "text": " more "},
        ],
    },
]


def test_only_texts_that_every_template_writes_count():
    """Instructions, questions and results count; answers and images do not."""
    asked = request(system="rules", messages=CONVERSATION)
    assert list(certain_texts(asked)) == ["rules", "question", "result", "more"]


def test_results_that_may_be_cleared_do_not_count():
    """With context edits, tool results may be left out of the prompt."""
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    asked = request(messages=CONVERSATION, context_management=edits)
    assert "result" not in list(certain_texts(asked))


def test_a_prompt_that_cannot_fit_is_refused_with_an_estimate():
    """Even if each token were the longest; one character less passes, as does an unknown model."""
    asked = request(messages=[{"role": "user", "content": "x" * 1001}])
    with pytest.raises(ApiError, match="prompt is too long: 250 tokens > 100 maximum"):
        check_characters(asked, longest_token_characters=10, window_tokens=100)
    check_characters(asked, longest_token_characters=11, window_tokens=100)
    check_characters(asked, longest_token_characters=0, window_tokens=100)
    check_characters(asked, longest_token_characters=10, window_tokens=0)
