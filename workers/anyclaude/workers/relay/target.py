"""How one request goes to one server."""

from dataclasses import dataclass

from anyclaude.runtime.upstreams import UpstreamSettings
from anyclaude.workers.relay.quirks import Quirks


@dataclass(frozen=True)
class Target:
    settings: UpstreamSettings
    # As the server calls it.
    model: str
    quirks: Quirks
    # In place of what the client asked for, since the window ends there; None leaves it.
    max_tokens: int | None = None
