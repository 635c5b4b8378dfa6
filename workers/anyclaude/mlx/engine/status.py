"""What the engine tells other threads about itself."""

from dataclasses import dataclass, field, replace

from anyclaude.mlx.engine.batch import BatchStatus
from anyclaude.mlx.engine.generation import Generation


@dataclass(frozen=True)
class EngineStatus:
    """A snapshot of the engine and its caches for other threads."""

    running_requests: int = 0
    queued_requests: int = 0
    # Since the start.
    refused_requests: int = 0
    reused_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    # Passes that generated them, and the drafts in these passes. A shared pass counts once for each
    # of its requests.
    decode_passes: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    # Prompt tokens that were computed ahead, those of them that a request reused, and how often
    # computing ahead was given up.
    ahead_computed_tokens: int = 0
    ahead_used_tokens: int = 0
    ahead_given_up: int = 0
    evictions: int = 0
    # Conversations and stable prefixes.
    caches: int = 0
    cache_bytes: int = 0
    cache_limit_bytes: int = 0
    # What one token costs in a cache; 0 until the first cache is measured.
    bytes_per_token: float = 0.0
    batch: BatchStatus = field(default_factory=BatchStatus)

    def ended(self, generation: Generation) -> "EngineStatus":
        """The status with the tokens of a request that has ended."""
        usage, decoded = generation.usage, generation.decoded
        computed = usage.input_tokens + usage.cache_creation_tokens
        return replace(
            self,
            reused_tokens=self.reused_tokens + usage.cache_read_tokens,
            computed_tokens=self.computed_tokens + computed,
            generated_tokens=self.generated_tokens + usage.output_tokens,
            decode_passes=self.decode_passes + decoded.passes,
            drafted_tokens=self.drafted_tokens + decoded.drafted_tokens,
            accepted_tokens=self.accepted_tokens + decoded.accepted_tokens,
            ahead_used_tokens=self.ahead_used_tokens + generation.ahead_tokens,
        )
