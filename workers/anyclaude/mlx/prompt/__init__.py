"""Turns a Messages request into token ids, with the points where the prompt may be cut.

Start reading at `renderer`. It uses, in this order: `canonical` and `content` (the request without
what the model does not see), `dialect` (the form that the chat template accepts), `control_tokens`
and `template` (rendering), `pieces` (tokenising) and `cuts` (the ends of messages). `continuation`
and `render_cache` render and tokenise only the new turn of a conversation.
"""

from anyclaude.mlx.prompt.renderer import Prompt, PromptRenderer

__all__ = ["Prompt", "PromptRenderer"]
