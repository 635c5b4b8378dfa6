"""Turns a Messages request into token ids, with the points where the prompt may be cut."""

from anyclaude.mlx.prompt.renderer import Prompt, PromptRenderer

__all__ = ["Prompt", "PromptRenderer"]
