"""Whether a context window is large enough for Claude Code."""

from typing import Final

# Claude Code's first request in a new folder: 25 tools, instructions and the first question.
CLAUDE_CODE_PROMPT_TOKENS: Final = 18_490


def window_problem(window_tokens: int) -> str:
    """A sentence that says why Claude Code does not fit into a window; empty if it does, or if
    the window is not known (0)."""
    if not 0 < window_tokens < CLAUDE_CODE_PROMPT_TOKENS:
        return ""
    return (
        f"The context window of {window_tokens:,} tokens is too small for Claude Code, whose first "
        f"prompt takes about {CLAUDE_CODE_PROMPT_TOKENS:,} tokens: choose a model with a larger "
        "window."
    )
