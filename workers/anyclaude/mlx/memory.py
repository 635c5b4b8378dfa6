"""How much memory the caches may take, and how much they do."""

import sys
from pathlib import Path
from typing import Final

import psutil

import mlx.core as mx
from anyclaude.mlx.machine import Machine

MIN_LIMIT_BYTES: Final = 512 * 1024**2
# What Claude Code sends with every request.
PROMPT_TOKENS: Final = 18_490
# What the rest of the machine keeps: on Linux caches share memory with everything else; on macOS
# the working set that Metal recommends already leaves the system its part.
LINUX_SHARE: Final = 0.5
MACOS_SHARE: Final = 0.9


def default_cache_limit(weights_bytes: int) -> int:
    """Bytes for KV caches when the settings give no limit."""
    return max(MIN_LIMIT_BYTES, _usable_bytes() - weights_bytes)


def active_bytes() -> int:
    """Bytes that MLX arrays hold now."""
    return int(mx.get_active_memory())


def peak_bytes() -> int:
    return int(mx.get_peak_memory())


def pool_bytes() -> int:
    """Bytes of freed arrays that MLX keeps for new ones."""
    return int(mx.get_cache_memory())


def release_pool() -> None:
    """Gives them back to the machine."""
    mx.clear_cache()


class TooLargeError(Exception):
    """The model does not fit into the memory that there is; the message has the numbers."""


def check_weights(folder: Path, machine: Machine, reserve_bytes: int) -> None:
    """Before a model is loaded: one that does not fit would bring the machine to a halt.

    Raises:
        TooLargeError
    """
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    available = machine.available_bytes()
    if weights + reserve_bytes > available:
        raise TooLargeError(
            f"The model in {folder} takes {weights / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are available ({reserve_bytes / 1e9:.1f} GB of them stay "
            "free: mlx.memory_reserve_bytes). Close other programs and `anyclaudectl worker "
            "restart mlx`, choose a smaller model, or answer elsewhere: `anyclaudectl mode "
            "lmstudio`. mlx.memory_check = false loads it all the same."
        )


def _usable_bytes() -> int:
    if sys.platform == "darwin":
        recommended = mx.device_info().get("max_recommended_working_set_size")
        if recommended:
            return int(int(recommended) * MACOS_SHARE)
    return int(psutil.virtual_memory().total * LINUX_SHARE)
