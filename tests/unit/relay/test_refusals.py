"""Refusals of prompts that are too long, as the sentences that Claude Code acts on."""

import pytest

from anyclaude.relay.overflow import find_overflow

TOO_LONG = "prompt is too long: 5000 tokens > 4096 maximum"
TOO_MUCH = (
    "input length and `max_tokens` exceed context limit: 3000 + 2000 > 4096, "
    "decrease input length or `max_tokens` and try again"
)

VLLM = (
    "This model's maximum context length is 4096 tokens. However, you requested {total} tokens "
    "({prompt} in the messages, 2000 in the completion). Please reduce the length of the messages."
)
VLLM_NEW = (
    "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context "
    "length is 4096 tokens and your request has {prompt} input tokens (2000 > 4096 - {prompt})."
)
VLLM_NEWEST = (
    "You passed {prompt} input tokens and requested 2000 output tokens. However, the model's "
    "context length is only 4096 tokens, resulting in a maximum input length of 2096 tokens."
)
OPENROUTER = (
    "This endpoint's maximum context length is 4096 tokens. However, you requested about {total} "
    "tokens ({prompt} of text input, 2000 in the output). Please reduce the length of either one"
)


@pytest.mark.parametrize("words", [VLLM, VLLM_NEW, VLLM_NEWEST, OPENROUTER])
@pytest.mark.parametrize(("prompt", "sentence"), [(5000, TOO_LONG), (3000, TOO_MUCH)])
def test_a_prompt_and_an_answer_too_long_differ(words, prompt, sentence):
    """A prompt that fits gets the error to shorten the answer, a longer one that to compact."""
    overflow = find_overflow(words.format(prompt=prompt, total=prompt + 2000), {})
    assert overflow is not None
    assert overflow.error("vllm", 2000).message == sentence
    assert overflow.error("vllm", 2000).status == 400


@pytest.mark.parametrize(
    "words",
    [
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is "
        "loaded with context length of only 4096 tokens, which is not enough. Try to load the "
        "model with a larger context length, or provide a shorter input",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make "
        "sure that `max_model_len` is no smaller than the number of text tokens.",
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "5000 tokens. Please reduce the length of the messages.",
        "This endpoint's maximum context length is 4096 tokens. However, you requested about 7000 "
        "tokens (4000 of text input, 1000 of tool input, 2000 in the output).",
    ],
)
def test_a_prompt_too_long(words):
    """Each server's message becomes the API's sentence with its counts."""
    overflow = find_overflow(words, {})
    assert overflow is not None
    assert overflow.error("it", 100).message == TOO_LONG


def test_counts_in_fields_of_their_own():
    """llama.cpp's counts are read from their own fields."""
    details = {"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}
    overflow = find_overflow("too much", details)
    assert overflow is not None
    assert overflow.error("llama-cpp", 1).message == TOO_LONG


@pytest.mark.parametrize(
    ("words", "details"),
    [
        ("the request exceeds the available context size. try increasing it", {}),
        ("Context size has been exceeded.", {}),
        ("The number of tokens to keep from the initial prompt is greater than the context length.",
         {}),
        ("Please reduce your prompt", {"code": "context_length_exceeded"}),
    ],
)  # fmt: skip
def test_without_counts_none_are_made_up(words, details):
    """Without counts the sentence has its known beginning and no numbers."""
    overflow = find_overflow(words, details)
    assert overflow is not None
    message = overflow.error("lmstudio", 1).message
    assert message == "prompt is too long: it exceeds the context window of lmstudio."


@pytest.mark.parametrize(
    "words", ["Invalid tool_choice type: 'object'.", "Loading model", "model not found", ""]
)
def test_other_refusals_are_not_about_length(words):
    """No other refusal makes a client compact its conversation."""
    assert find_overflow(words, {}) is None
