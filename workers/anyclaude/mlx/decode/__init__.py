"""From generated tokens to content blocks: sampling, detokenising, and reading tool calls."""

from anyclaude.mlx.decode.sampling import ThinkingBudget, make_sampler
from anyclaude.mlx.decode.stream import BlockStream

__all__ = ["BlockStream", "ThinkingBudget", "make_sampler"]
