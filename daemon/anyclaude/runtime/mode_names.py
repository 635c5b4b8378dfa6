"""Older words for today's modes, as earlier versions of anyclaude named them.

The daemon takes them where a mode is set, the launcher where a launch names its own; routes know
today's names alone.
"""

from collections.abc import Mapping
from typing import Final

HISTORIC: Final[Mapping[str, str]] = dict.fromkeys(
    ("local", "mlx", "mlx-textgen", "mlx-omni", "vllm-mlx"), "mlx-lm"
)


def current_name(word: str) -> tuple[str, str]:
    """Today's name for `word` and, for a historic word, one line that says so."""
    name = HISTORIC.get(word, word)
    warning = f'"{word}" is the old name of mode {name}; please use {name}.' if name != word else ""
    return name, warning
