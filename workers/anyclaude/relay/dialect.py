"""What the relay needs of a dialect: how a request is sent, and what reads its response."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic_core import from_json

from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.requests import CountTokensRequest, MessagesRequest
from anyclaude.relay.endings import Ending
from anyclaude.relay.quirks import Quirks
from anyclaude.relay.sse import ServerEvent
from anyclaude.relay.usage import prompt_tokens
from anyclaude.runtime.upstreams import UpstreamSettings
from anyclaude.worker.v1 import worker_pb2 as pb

_HEARTBEATS: Final = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})
# Words in place of JSON, such as `ping`, `: keepalive` or `[PING]`; cut JSON is something else.
_WORDS: Final = re.compile(r"[\[(<:\s]*[\w .:-]{1,60}[\])>\s]*")
_STOP_REASONS: Final[Mapping[Ending | None, pb.StopReason]] = {
    Ending.CUT: pb.STOP_REASON_MAX_TOKENS,
    Ending.WINDOW: pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED,
    Ending.REFUSED: pb.STOP_REASON_REFUSAL,
}


@dataclass(frozen=True)
class Target:
    """What one request is adapted to: the server's settings, model and quirks."""

    settings: UpstreamSettings
    # The model's name on the server.
    model: str
    quirks: Quirks
    # Replaces the client's value, since the context window ends there; None keeps the client's.
    max_tokens: int | None = None
    # False if the server said that its model reads text only.
    takes_images: bool = True

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

    def __init__(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        """
        Args:
            request: the client's request.
            target: what the request was adapted to.
            estimated_tokens: of the prompt, until the server reports its count.
            on_usage: called at the end with the prompt's true count, or None without one.
        """
        self._request = request
        self._target = target
        self._estimated_tokens = estimated_tokens
        self._on_usage = on_usage
        self._writer = BlockWriter()
        self._started = False
        self._stop_sequence = ""
        # max_tokens 0 only fills the cache; the token that was generated for it is not emitted.
        self._is_warm_up = request.max_tokens == 0
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

    def _emit_started(self, usage: pb.Usage) -> None:
        self._started = True
        self._writer.add(pb.GenerateResponse(started=pb.Started(usage=usage)))

    def _emit_finished(
        self,
        usage: pb.Usage,
        reason: pb.StopReason,
        *,
        is_counted: bool,
        applied_edits: Sequence[pb.AppliedEdit] = (),
    ) -> pb.Usage:
        """`is_counted` tells whether the server itself counted the tokens of the prompt."""
        self._on_usage(prompt_tokens(usage) if is_counted else None)
        if self._is_warm_up:
            usage.output_tokens = 0
            reason = pb.STOP_REASON_MAX_TOKENS
        finished = pb.Finished(
            stop_reason=reason,
            stop_sequence=self._stop_sequence,
            usage=usage,
            applied_edits=applied_edits,
        )
        self._writer.add(pb.GenerateResponse(finished=finished))
        return usage

    def _stop_reason(self, ending: Ending | None) -> pb.StopReason:
        if ending is Ending.CUT and self._target.max_tokens is not None:
            # max_tokens was lowered to fit into the context window.
            return pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED
        if ending in _STOP_REASONS:
            return _STOP_REASONS[ending]
        return pb.STOP_REASON_TOOL_USE if self._writer.has_tool_use else pb.STOP_REASON_END_TURN


class Dialect(ABC):
    name: ClassVar[pb.Dialect]
    # The path for generations, below the server's root.
    path: ClassVar[str]
    # Whether tools that the server runs itself, such as a web search, are passed on to it.
    knows_server_tools: ClassVar[bool]
    reader: ClassVar[type[Reader]]

    @abstractmethod
    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        """What every request carries: with the server's `key`, or to the real Claude API."""

    @abstractmethod
    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        """The body to send; `document` is the client's own.

        Raises:
            ApiError: 400 for content that the dialect cannot express.
        """

    @abstractmethod
    def count_request(
        self, request: CountTokensRequest, document: Mapping[str, Any], target: Target
    ) -> tuple[str, dict[str, Any]] | None:
        """Path and body of a request to count tokens; None if the server has no endpoint for it."""


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
        try:
            # It may contain half of a surrogate pair, which only this parser accepts.
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise BrokenAnswerError("a piece of it is not JSON") from None
    if not isinstance(value, dict):
        raise BrokenAnswerError("a piece of it is not a JSON object")
    return None if not value or (is_heartbeat and "error" not in value) else value
