"""What is measured: the running service, or another server at an address."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from anyclaude.cli.bench.endpoint import Dialect, Endpoint
from anyclaude.cli.bench.insight import ServiceInsight
from anyclaude.cli.bundle import Endpoint as OwnEndpoint
from anyclaude.cli.command import connect


@dataclass(frozen=True)
class Target:
    """`insight` is None, and `window_tokens` 0, unless it is the running service."""

    endpoint: Endpoint
    base_url: str
    model: str
    window_tokens: int = 0
    insight: ServiceInsight | None = None


@contextlib.contextmanager
def other_server(base_url: str, api_key: str, model: str, openai: bool) -> Iterator[Target]:
    """Any server; without a name of a model, the first that it lists."""
    with Endpoint(base_url, api_key, model, _dialect(openai)) as endpoint:
        yield Target(endpoint, base_url, endpoint.choose_model())


@contextlib.contextmanager
def own_service(openai: bool) -> Iterator[Target]:
    """The service that this environment names, in its current mode."""
    with connect() as client:
        own = OwnEndpoint.of(client, {})
        name = own.model_id or own.mode
        with Endpoint(own.base_url, own.auth_token, name, _dialect(openai)) as endpoint:
            window = own.context_window_tokens
            yield Target(endpoint, own.base_url, name, window, ServiceInsight(client))


def _dialect(openai: bool) -> Dialect:
    return Dialect.OPENAI if openai else Dialect.ANTHROPIC
