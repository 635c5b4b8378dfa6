"""Names that earlier versions of anyclaude had for modes.

The daemon accepts them where a mode is set, and the launcher where a launch names its mode. Routes
use the current names only.
"""

from collections.abc import Mapping
from typing import Final

HISTORIC: Final[Mapping[str, str]] = dict.fromkeys(
    ("local", "mlx", "mlx-textgen", "mlx-omni", "vllm-mlx"), "mlx-lm"
)


def current_name(word: str) -> tuple[str, str]:
    """The current name for `word` and, if it is a historic one, a warning of one line."""
    name = HISTORIC.get(word, word)
    warning = f'"{word}" is the old name of mode {name}; please use {name}.' if name != word else ""
    return name, warning
