"""What the relay needs of a dialect."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from anyclaude.messages.requests import MessagesRequest
from anyclaude.relay.reader import Reader
from anyclaude.relay.target import Target
from anyclaude.worker.v1 import worker_pb2 as pb


class Dialect(Protocol):
    @property
    def name(self) -> pb.Dialect: ...

    @property
    def path(self) -> str:
        """Where generations are posted, below the server's root."""
        ...

    @property
    def knows_server_tools(self) -> bool:
        """Whether tools that the server runs itself, such as a web search, are passed on to it."""
        ...

    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        """What the dialect sends with every request.

        Args:
            key: the server's key, empty for none.
            is_api: the server is the real Claude API.
        """
        ...

    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        """The request as the server takes it; `document` is the client's own.

        Raises:
            ApiError: 400 for what the dialect has no place for.
        """
        ...

    def reader(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None],
    ) -> Reader:
        """What reads the answer; `on_usage` gets the prompt's count, None where it is not told."""
        ...
