"""What one session of Claude Code asked, reused and saved, computed from its request records.

The time saved is measured, not assumed: the tokens that were reused, at the rate at which the cold
requests of the same session computed theirs. Without a cold request it is not known.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyclaude.cli.units import counted, format_seconds
from anyclaude.messages.reuse import is_cold, prompt_tokens

if TYPE_CHECKING:
    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord


@dataclass(frozen=True)
class SessionMetrics:
    requests: int
    average_seconds: float
    prompt_tokens: int
    # Requests that reused a part of their prompt, and not only its first words.
    cache_hits: int
    reused_tokens: int
    # None if no request of the session was cold.
    saved_seconds: float | None

    def sentences(self) -> list[str]:
        if not self.requests:
            return ["No request of this session is known."]
        saved = self.saved_seconds
        return [
            f"{counted(self.requests, 'request')}, {format_seconds(self.average_seconds)} each "
            f"on average, {self.prompt_tokens:,} prompt tokens.",
            f"{self.cache_hits} of them reused their prompt's beginning: "
            f"{self.reused_tokens:,} tokens were not computed again.",
            "Time saved: "
            + (
                "not known, since no request of the session computed its whole prompt."
                if saved is None
                else f"{format_seconds(saved)}, at the rate of this session's cold requests."
            ),
        ]


def metrics_of(records: "Iterable[RequestRecord]") -> SessionMetrics:
    """The metrics of one session, or of one launch, from its records."""
    own = [record for record in records if record.HasField("usage")]
    usages = [record.usage for record in own]
    reused = sum(usage.cache_read_tokens for usage in usages)
    seconds_per_token = _cold_seconds_per_token(own)
    return SessionMetrics(
        requests=len(own),
        average_seconds=sum(r.duration.ToNanoseconds() for r in own) / 1e9 / max(1, len(own)),
        prompt_tokens=sum(map(prompt_tokens, usages)),
        cache_hits=sum(not is_cold(usage) for usage in usages),
        reused_tokens=reused,
        saved_seconds=None if seconds_per_token is None else reused * seconds_per_token,
    )


def _cold_seconds_per_token(records: "Iterable[RequestRecord]") -> float | None:
    """How long the cold requests computed for each token of their prompts."""
    cold = [r for r in records if r.timings.HasField("prefill") and is_cold(r.usage)]
    tokens = sum(r.usage.input_tokens + r.usage.cache_creation_tokens for r in cold)
    return sum(r.timings.prefill.ToNanoseconds() for r in cold) / 1e9 / tokens if tokens else None
