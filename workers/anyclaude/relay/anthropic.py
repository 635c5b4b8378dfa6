"""The Anthropic dialect: `POST /v1/messages` of LM Studio, Ollama, vLLM, llama.cpp and the API.

The request is sent as it came, except for the model, fields that only the real API knows, and
system messages inside the conversation, which local servers refuse or move to the front. A response
that violates the grammar of events, or ends before its stop reason, is an error.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import structlog

from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.requests import MessagesRequest
from anyclaude.relay.dialect import (
    BrokenAnswerError,
    Reader,
    RefusedInStreamError,
    Target,
    parse_object,
)
from anyclaude.relay.refusals import details_of
from anyclaude.relay.sse import ServerEvent
from anyclaude.relay.turns import arrange, reminder, turn_texts
from anyclaude.relay.usage import anthropic_usage, prompt_tokens
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

VERSION: Final = b"2023-06-01"

# Fields for Anthropic's own service.
_API_ONLY: Final = frozenset(
    {
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "mcp_servers",
        "service_tier",
        "speed",
    }
)
COUNT_PATH: Final = "/v1/messages/count_tokens"
_REASONS: Final = {
    "max_tokens": pb.STOP_REASON_MAX_TOKENS,
    "refusal": pb.STOP_REASON_REFUSAL,
    "model_context_window_exceeded": pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED,
    "pause_turn": pb.STOP_REASON_PAUSE_TURN,
}


class AnthropicDialect:
    name: Final = pb.DIALECT_ANTHROPIC
    path: Final = "/v1/messages"
    knows_server_tools: Final = True

    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        headers = [(b"anthropic-version", VERSION)]
        if key:
            headers.append((b"x-api-key", key.encode()))
        if key and not is_api:
            # Some local servers read the key only from here.
            headers.append((b"authorization", f"Bearer {key}".encode()))
        return headers

    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        body = {**document, "model": target.model, "stream": target.settings.stream}
        body["max_tokens"] = target.answer_tokens(request.max_tokens)
        if target.settings.kind is UpstreamKind.CLAUDE:
            return body
        # 0 means to fill the cache only; local servers need at least one token for that.
        body["max_tokens"] = max(1, body["max_tokens"])
        body |= _conversation(request, body["messages"])
        body |= target.settings.extra_body
        left_out = _API_ONLY | target.quirks.dropped
        return {key: value for key, value in body.items() if key not in left_out}

    def reader(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None],
    ) -> Reader:
        return MessageReader(
            estimated_tokens,
            on_usage,
            max_tokens=target.answer_tokens(request.max_tokens),
            window_limited=target.max_tokens is not None,
        )


def count_body(request: Any, document: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The body of `POST /v1/messages/count_tokens`."""
    body = {**document, "model": target.model}
    if target.settings.kind is UpstreamKind.CLAUDE:
        return body
    body |= _conversation(request, body["messages"])
    left_out = _API_ONLY | target.quirks.dropped | {"max_tokens", "stream"}
    return {key: value for key, value in body.items() if key not in left_out}


def _conversation(request: Any, messages: list[Any]) -> dict[str, Any]:
    """System texts and turns for local servers: turns are of the user and the assistant only."""
    conversation = arrange(request)
    by_place = dict(_placed(messages))
    turns: list[dict[str, Any]] = []
    for place, turn in conversation.turns:
        if turn.role != "system":
            turns.append(by_place[place])
        elif text := "\n\n".join(turn_texts(turn)):
            turns.append({"role": "user", "content": reminder(text)})
    system = [{"type": "text", "text": text} for text in conversation.system]
    return {"messages": turns, "system": system}


def _placed(messages: list[Any]) -> Iterator[tuple[str, Any]]:
    for index, message in enumerate(messages):
        yield f"messages.{index}", message


class MessageReader:
    """Reads one response; see `anyclaude.relay.dialect.Reader`."""

    def __init__(
        self,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None] = lambda _: None,
        *,
        max_tokens: int | None = None,
        window_limited: bool = False,
    ) -> None:
        """
        Args:
            estimated_tokens: of the prompt, until the server reports its count.
            on_usage: called at the end with the prompt's true count, or None without one.
            max_tokens: as requested; with 0, to fill the cache only, no content is emitted.
            window_limited: max_tokens was lowered to fit into the context window.
        """
        self._estimated_tokens = estimated_tokens
        self._on_usage = on_usage
        self._window_limited = window_limited
        self._max_tokens = max_tokens
        self._is_warm_up = max_tokens == 0
        self._writer = BlockWriter()
        self._started = False
        self._has_content = False
        self._done = False
        # The kind of the server's open block; empty between blocks.
        self._kind = ""
        self._block_index: object = None
        # The input that came with a tool block's start, and what came in pieces.
        self._given_input: Any = None
        self._pieces: list[str] = []
        self._reason: str | None = None
        self._stop_sequence = ""
        self._usage: dict[str, Any] = {}
        self._tool_ids: set[str] = set()

    @property
    def has_begun(self) -> bool:
        return self._has_content

    @property
    def is_done(self) -> bool:
        return self._done

    @property
    def is_complete(self) -> bool:
        return self._done or (self._reason is not None and not self._kind)

    def take(self) -> list[pb.GenerateResponse]:
        return self._writer.drain()

    def feed(self, event: ServerEvent) -> None:
        if event.data.strip() == "[DONE]":
            return
        data = parse_object(event.data)
        match data.get("type") or event.name:
            case "message_start":
                self._start(_object(data.get("message")))
            case kind if self._is_warm_up and str(kind).startswith("content_block"):
                return
            case "content_block_start":
                self._begin(data.get("index"), _object(data.get("content_block")))
            case "content_block_delta":
                self._expect(data.get("index"))
                self._extend(_object(data.get("delta")))
            case "content_block_stop":
                # Some servers send this twice.
                if self._kind:
                    self._end()
            case "message_delta":
                self._note_end(_object(data.get("delta")), _object(data.get("usage")))
            case "message_stop":
                self._done = True
            case "error":
                raise RefusedInStreamError(details_of(data) or {"message": "no reason given"})
            case _:
                # Pings, and events that a later version of the API may add.
                self._check_unknown(data)

    def whole(self, document: Any) -> None:
        message = _object(document)
        if message.get("type") == "error" or not isinstance(message.get("content"), list):
            details = details_of(message)
            if details:
                raise RefusedInStreamError(details)
            raise BrokenAnswerError("it is no message")
        self._start(message)
        for index, block in enumerate([] if self._is_warm_up else message["content"]):
            self._begin(index, _object(block))
            self._end()
        self._note_end(message, {})
        self._done = True

    def finish(self) -> pb.Usage:
        if not self._started or self._reason is None or self._kind:
            raise BrokenAnswerError("it ended before it was complete")
        self._writer.close()
        usage = self._known_usage()
        if self._is_warm_up:
            usage.output_tokens = 0
        has_counts = prompt_tokens(anthropic_usage(self._usage)) > 0
        self._on_usage(prompt_tokens(usage) if has_counts else None)
        finished = pb.Finished(
            stop_reason=self._stop_reason(self._reason),
            stop_sequence=self._stop_sequence,
            usage=usage,
        )
        self._writer.add(pb.GenerateResponse(finished=finished))
        return usage

    @staticmethod
    def _check_unknown(data: Mapping[str, Any]) -> None:
        if data.get("type") is None and (details := details_of(data)):
            raise RefusedInStreamError(details)

    def _start(self, message: Mapping[str, Any]) -> None:
        if self._started:
            return
        self._started = True
        self._usage = dict(_object(message.get("usage")))
        self._writer.add(pb.GenerateResponse(started=pb.Started(usage=self._known_usage())))

    def _known_usage(self) -> pb.Usage:
        usage = anthropic_usage(self._usage)
        if not prompt_tokens(usage):
            usage.input_tokens = self._estimated_tokens
        return usage

    def _expect(self, index: object) -> None:
        if not self._kind or index != self._block_index:
            raise BrokenAnswerError("a delta of a block that is not open")

    def _begin(self, index: object, block: Mapping[str, Any]) -> None:
        if not self._started:
            raise BrokenAnswerError("a block before the message")
        self._has_content = True
        if self._kind:
            self._end()
        self._kind, self._block_index = str(block.get("type") or "unknown"), index
        self._given_input, self._pieces = block.get("input"), []
        match self._kind:
            case "text":
                self._writer.text(str(block.get("text") or ""))
            case "thinking":
                self._writer.thinking(str(block.get("thinking") or ""))
                self._writer.sign(str(block.get("signature") or ""))
            case "tool_use":
                self._tool(block)
            case kind:
                # The contract has no such block; mostly it is a result of the server's own tools.
                log.warning("a block of the response is left out", kind=kind)

    def _tool(self, block: Mapping[str, Any]) -> None:
        call_id, name = str(block.get("id") or ""), str(block.get("name") or "")
        if not name or not call_id or call_id in self._tool_ids:
            raise BrokenAnswerError("a tool call without a name or an id of its own")
        self._tool_ids.add(call_id)
        self._writer.begin_tool_use(call_id, name)

    def _extend(self, delta: Mapping[str, Any]) -> None:
        text = delta.get("text") or delta.get("thinking") or ""
        match self._kind:
            # Some servers send thoughts as text deltas of a thinking block.
            case "thinking":
                self._writer.thinking(str(text))
                self._writer.sign(str(delta.get("signature") or ""))
            case "text":
                self._writer.text(str(text))
            case "tool_use":
                piece = str(delta.get("partial_json") or "")
                self._pieces.append(piece)
                self._writer.input_json(piece)

    def _end(self) -> None:
        if self._kind == "tool_use":
            self._complete_input()
        self._writer.close()
        self._kind = ""

    def _complete_input(self) -> None:
        given = "".join(self._pieces)
        if not given.strip():
            whole = self._given_input if isinstance(self._given_input, dict) else {}
            self._writer.input_json(json.dumps(whole, ensure_ascii=False))
        elif not isinstance(_json(given), dict):
            raise BrokenAnswerError("it stops in the middle of a tool call")

    def _note_end(self, delta: Mapping[str, Any], usage: Mapping[str, Any]) -> None:
        reason = delta.get("stop_reason")
        if isinstance(reason, str):
            self._reason = reason
        sequence = delta.get("stop_sequence")
        if isinstance(sequence, str):
            self._stop_sequence = sequence
        self._usage |= {key: value for key, value in usage.items() if value is not None}

    @property
    def _is_used_up(self) -> bool:
        """Whether the response used all tokens that were requested."""
        if self._max_tokens is None:
            return False
        return anthropic_usage(self._usage).output_tokens >= self._max_tokens

    def _stop_reason(self, reason: str) -> pb.StopReason:
        if self._is_warm_up:
            return pb.STOP_REASON_MAX_TOKENS
        if reason == "end_turn" and self._is_used_up:
            # vllm-mlx reports end_turn for every stream.
            reason = "max_tokens"
        if reason == "max_tokens" and self._window_limited:
            return pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED
        if reason in _REASONS:
            return _REASONS[reason]
        if reason == "stop_sequence" and self._stop_sequence:
            return pb.STOP_REASON_STOP_SEQUENCE
        return pb.STOP_REASON_TOOL_USE if self._writer.has_tool_use else pb.STOP_REASON_END_TURN


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
