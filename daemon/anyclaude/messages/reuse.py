"""Where a request's prefix came from, by which all figures of first tokens are told apart.

Figures of cold and of other requests are never mixed, in any place that shows them.
"""

from enum import StrEnum
from typing import Final

from anyclaude.worker.v1.worker_pb2 import Usage

# A prompt may share its first tokens with any other one, so a cold request may have reused a few.
_COLD_SHARE: Final = 0.1


class Prefix(StrEnum):
    COLD = "cold"
    # At least half of what was reused was read from disk, for example after a restart.
    RESTORED = "restored"
    WARM = "warm"


def prefix_of(usage: Usage) -> Prefix:
    """Which of the three a request with that usage was."""
    if is_cold(usage):
        return Prefix.COLD
    is_restored = 2 * usage.disk_read_tokens >= usage.cache_read_tokens
    return Prefix.RESTORED if is_restored else Prefix.WARM


def is_cold(usage: Usage) -> bool:
    """Whether at most a tenth of the prompt was reused."""
    return usage.cache_read_tokens <= _COLD_SHARE * prompt_tokens(usage)


def prompt_tokens(usage: Usage) -> int:
    """The length of the prompt, in tokens."""
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens
