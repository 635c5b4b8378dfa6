"""From generated tokens to blocks: detokenise, split at markers, read tool calls, sample."""

from anyclaude.workers.mlx.decode.sampling import make_sampler
from anyclaude.workers.mlx.decode.stream import BlockStream
from anyclaude.workers.mlx.decode.thinking import ThinkingBudget

__all__ = ["BlockStream", "ThinkingBudget", "make_sampler"]
