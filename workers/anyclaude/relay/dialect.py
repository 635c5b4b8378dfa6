"""What the relay needs of a dialect: how a request is sent, and what reads its response."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic_core import from_json

from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.requests import MessagesRequest
from anyclaude.relay.quirks import Quirks
from anyclaude.relay.sse import ServerEvent
from anyclaude.runtime.upstreams import UpstreamSettings
from anyclaude.worker.v1 import worker_pb2 as pb

_HEARTBEATS: Final = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})
# Words in place of JSON, such as `ping`, `: keepalive` or `[PING]`; cut JSON is something else.
_WORDS: Final = re.compile(r"[\[(<:\s]*[\w .:-]{1,60}[\])>\s]*")


@dataclass(frozen=True)
class Target:
    """What one request is adapted to: the server's settings, model and quirks."""

    settings: UpstreamSettings
    # The model's name on the server.
    model: str
    quirks: Quirks
    # Replaces the client's value, since the context window ends there; None keeps the client's.
    max_tokens: int | None = None

    def answer_tokens(self, wanted: int) -> int:
        """The max_tokens to request: what the client `wanted`, within the server's limits."""
        tokens = wanted if self.max_tokens is None else self.max_tokens
        for limit in (self.settings.max_output_tokens, self.quirks.max_output_tokens):
            tokens = min(tokens, limit or tokens)
        return tokens


class BrokenAnswerError(Exception):
    """The response cannot be understood, or is incomplete; the message says how."""


class RefusedInStreamError(Exception):
    """The server sent an error in place of content, or after some of it."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        super().__init__(str(details.get("message", "")))
        self.details = details


class Reader(ABC):
    """Turns one response of a server into worker events.

    All methods but `take` raise `BrokenAnswerError` and `RefusedInStreamError`.
    """

    def __init__(self) -> None:
        self._writer = BlockWriter()
        # Content has arrived, so the prompt is computed and `idle_timeout_seconds` applies.
        self.has_begun = False
        # The end of the response has arrived; later bytes on the connection are ignored.
        self.is_done = False

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """All content has arrived; only token counts may follow."""

    def feed(self, event: ServerEvent) -> None:
        for each in events_within(event):
            self._feed(each)

    @abstractmethod
    def _feed(self, event: ServerEvent) -> None: ...

    @abstractmethod
    def whole(self, document: Any) -> None:
        """Reads a response that is not streamed."""

    @abstractmethod
    def finish(self) -> pb.Usage:
        """Emits the delayed events, then Finished; returns its usage. Call it once, at the end."""

    def take(self) -> list[pb.GenerateResponse]:
        """The worker events since the last call, including those before an error."""
        return self._writer.drain()


class Dialect(Protocol):
    @property
    def name(self) -> pb.Dialect: ...

    @property
    def path(self) -> str:
        """The path for generations, below the server's root."""
        ...

    @property
    def knows_server_tools(self) -> bool:
        """Whether tools that the server runs itself, such as a web search, are passed on to it."""
        ...

    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        """What every request carries.

        Args:
            key: the server's key; empty for none.
            is_api: the server is the real Claude API.
        """
        ...

    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        """The body to send; `document` is the client's own.

        Raises:
            ApiError: 400 for content that the dialect cannot express.
        """
        ...

    def reader(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None],
    ) -> Reader:
        """Reads the response. `on_usage` gets the prompt's token count, None if none was sent."""
        ...


def events_within(event: ServerEvent) -> Iterator[ServerEvent]:
    """The events that a server put into one, because it leaves out the blank lines between them."""
    lines = event.data.split("\n") if "\n" in event.data else ()
    if lines and all(line.startswith("{") and line.rstrip().endswith("}") for line in lines[:-1]):
        yield from (ServerEvent(event.name, line) for line in lines)
    else:
        yield event


def parse_event(event: ServerEvent) -> Mapping[str, Any] | None:
    """Parses the JSON object that one event holds; None for an event that says nothing.

    Servers keep a connection alive with comments, which the parser of the stream leaves out, and
    with events that are empty, hold an empty object or null, or hold a word or two.

    Raises:
        BrokenAnswerError: it is no JSON object.
        RefusedInStreamError: it is an error in plain words.
    """
    data = event.data.strip()
    is_heartbeat = event.name.lower() in _HEARTBEATS or _WORDS.fullmatch(data)
    if event.name == "error" and data and not data.startswith("{"):
        raise RefusedInStreamError({"message": data})
    if not data or (is_heartbeat and not data.startswith("{")):
        return None
    try:
        value = from_json(data)
    except ValueError:
        value = _with_halves(data)
    if not isinstance(value, dict):
        raise BrokenAnswerError("a piece of it is not a JSON object")
    return None if not value or (is_heartbeat and "error" not in value) else value


def _with_halves(data: str) -> Any:
    """Parses JSON that may contain half of a surrogate pair, which not every parser accepts."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BrokenAnswerError("a piece of it is not JSON") from None
