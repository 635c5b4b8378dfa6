"""How one request goes to one server."""

from dataclasses import dataclass

from anyclaude.relay.quirks import Quirks
from anyclaude.runtime.upstreams import UpstreamSettings


@dataclass(frozen=True)
class Target:
    settings: UpstreamSettings
    # As the server calls it.
    model: str
    quirks: Quirks
    # In place of what the client asked for, since the window ends there; None leaves it.
    max_tokens: int | None = None

    def answer_tokens(self, wanted: int) -> int:
        """The max_tokens to ask for: what the client `wanted`, as far as the server lets."""
        tokens = wanted if self.max_tokens is None else self.max_tokens
        for limit in (self.settings.max_output_tokens, self.quirks.max_output_tokens):
            tokens = min(tokens, limit or tokens)
        return tokens
