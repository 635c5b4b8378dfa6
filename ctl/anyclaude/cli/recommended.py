"""Models that are known to serve Claude Code well, and which of them fit a machine's memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from anyclaude.messages.windows import CLAUDE_CODE_PROMPT_TOKENS

# What the system and other programs need beside a model.
_OTHERS_BYTES: Final = 4_000_000_000
# The share of a Mac's memory that Metal lets one process use.
_USABLE: Final = 0.75


@dataclass(frozen=True)
class Recommended:
    """A model in MLX format. Its bytes are about right, computed from its configuration."""

    name: str
    weights_bytes: int
    kv_bytes_per_token: int
    good_for: str
    # What may surprise; docs/models.md has the whole table.
    trap: str = ""

    @property
    def needed_bytes(self) -> int:
        """The weights, and the KV cache of two conversations of Claude Code."""
        return self.weights_bytes + 2 * CLAUDE_CODE_PROMPT_TOKENS * self.kv_bytes_per_token


_MODELS: Final = (
    Recommended(
        "mlx-community/GLM-4.6-4bit",
        198_000_000_000,
        376_832,
        "the best answers of this list",
        "Thinks before it answers; a step of a tool loop takes long on small GPUs.",
    ),
    Recommended(
        "mlx-community/gpt-oss-120b-MXFP4-Q8",
        63_000_000_000,
        36_864,
        "strong and fast for its size",
        "Its sliding windows allow a cached prompt to be cut at few places only.",
    ),
    Recommended(
        "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit", 17_200_000_000, 98_304, "daily coding"
    ),
    Recommended(
        "mlx-community/Devstral-Small-2507-4bit",
        13_300_000_000,
        163_840,
        "careful edits",
        "A dense model: several times slower than Qwen3-Coder.",
    ),
    Recommended(
        "mlx-community/gpt-oss-20b-MXFP4-Q8",
        12_100_000_000,
        24_576,
        "machines with 24 GB",
        "Its sliding windows allow a cached prompt to be cut at few places only.",
    ),
    Recommended(
        "mlx-community/Qwen3-4B-Instruct-2507-4bit",
        2_300_000_000,
        147_456,
        "small machines, short tasks",
        "A small model: give it one small task at a time.",
    ),
)


def fitting(memory_bytes: int) -> Iterator[Recommended]:
    """The models that fit into a machine with so much memory, the largest first."""
    usable = min(_USABLE * memory_bytes, memory_bytes - _OTHERS_BYTES)
    return (model for model in _MODELS if model.needed_bytes <= usable)
