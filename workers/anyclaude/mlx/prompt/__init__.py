"""From a Messages request to token ids with cut points."""

from anyclaude.mlx.prompt.renderer import Prompt, PromptRenderer

__all__ = ["Prompt", "PromptRenderer"]
