"""How much memory the caches may take, and how much they do."""

import sys
from typing import Final

import mlx.core as mx
import psutil

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


def available_bytes() -> int:
    """Bytes of the machine's memory that could be taken before other programs are swapped out."""
    return int(psutil.virtual_memory().available)


def active_bytes() -> int:
    """Bytes that MLX arrays hold now."""
    return int(mx.get_active_memory())


def peak_bytes() -> int:
    return int(mx.get_peak_memory())


def _usable_bytes() -> int:
    if sys.platform == "darwin":
        recommended = mx.device_info().get("max_recommended_working_set_size")
        if recommended:
            return int(int(recommended) * MACOS_SHARE)
    return int(psutil.virtual_memory().total * LINUX_SHARE)
