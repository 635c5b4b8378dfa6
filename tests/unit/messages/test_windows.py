"""A context window that Claude Code does not fit into is named wherever a user looks."""

import pytest

from anyclaude.messages.errors import prompt_too_long
from anyclaude.messages.windows import window_problem


@pytest.mark.parametrize("window", [0, 18_490, 32_768, 200_000])
def test_a_window_that_is_large_enough_or_not_known_is_no_problem(window: int) -> None:
    """There is nothing to say, and the sentence on which clients compact stays as it is."""
    assert window_problem(window) == ""
    assert prompt_too_long(9, window, window_problem(window)).message.endswith("maximum")


@pytest.mark.parametrize("window", [1, 2_048, 8_192, 16_384, 18_489])
def test_a_window_that_is_too_small_is_named_with_its_size(window: int) -> None:
    """The sentence says how large the window is, and what Claude Code needs."""
    assert f"{window:,} tokens is too small for Claude Code" in window_problem(window)
    message = prompt_too_long(20_000, window, window_problem(window)).message
    assert message.startswith(f"prompt is too long: 20000 tokens > {window} maximum. ")
