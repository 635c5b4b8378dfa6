"""Which requests count as cold: those that computed their prompt from its beginning.

Figures of cold and of warm requests are never mixed, here or in any other place that shows them.
"""

from typing import Final

from anyclaude.worker.v1.worker_pb2 import Usage

# A prompt may share its first tokens with any other one, so a cold request may have reused a few.
_COLD_SHARE: Final = 0.1


def is_cold(usage: Usage) -> bool:
    """Whether at most a tenth of the prompt was reused."""
    return usage.cache_read_tokens <= _COLD_SHARE * prompt_tokens(usage)


def prompt_tokens(usage: Usage) -> int:
    """The length of the prompt, in tokens."""
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens
