"""From generated tokens to content blocks: sampling, detokenising, and reading tool calls.

Start reading at `stream`, which turns the tokens of one answer into events. `scanner` divides the
text into thinking, text and calls, `calls` reads a complete call, `constraint` allows only tokens
that keep a call valid, and `notations` declares how each model family writes calls.
"""

from anyclaude.mlx.decode.sampling import ThinkingBudget, make_sampler, seeded
from anyclaude.mlx.decode.stream import BlockStream, tool_use_ids

__all__ = ["BlockStream", "ThinkingBudget", "make_sampler", "seeded", "tool_use_ids"]
