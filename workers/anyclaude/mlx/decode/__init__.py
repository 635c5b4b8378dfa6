"""From generated tokens to blocks: detokenise, split at markers, read tool calls, sample."""

from anyclaude.mlx.decode.sampling import make_sampler
from anyclaude.mlx.decode.stream import BlockStream
from anyclaude.mlx.decode.thinking import ThinkingBudget

__all__ = ["BlockStream", "ThinkingBudget", "make_sampler"]
