"""Reads a response of the Messages API and emits it as worker events.

A response that violates the grammar of events, or ends before its stop reason, is an error. What
servers get wrong without losing anything is corrected: ids of calls that are missing, repeated or
odd, empty input before the real one, an end that is sent twice.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from anyclaude.messages.context_edits import edits_in
from anyclaude.messages.requests import MessagesRequest
from anyclaude.messages.schemas import as_object
from anyclaude.relay.arguments import Arguments, text_of
from anyclaude.relay.dialect import (
    BrokenAnswerError,
    Reader,
    RefusedInStreamError,
    Target,
    parse_event,
)
from anyclaude.relay.endings import Ending, ending_of
from anyclaude.relay.halves import Halves, without_halves
from anyclaude.relay.names import CallIds, ToolNames, used_ids
from anyclaude.relay.refusals import details_of
from anyclaude.relay.sse import ServerEvent
from anyclaude.relay.state import ReasoningState
from anyclaude.relay.thoughts import Piece, ThoughtSplitter
from anyclaude.relay.usage import anthropic_usage, prompt_tokens
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

# The Messages API takes longer names of tools than chat completions do.
MAX_NAME_CHARACTERS: Final = 128
_CUT_CALL: Final = "it stops in the middle of a tool call"


class MessageReader(Reader):
    """Reads one response; see `anyclaude.relay.dialect.Reader`."""

    def __init__(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        super().__init__(request, target, estimated_tokens, on_usage)
        is_api = target.settings.kind is UpstreamKind.CLAUDE
        self._ids = CallIds(() if is_api else used_ids(request))
        self._names = ToolNames((tool.name for tool in request.tools), MAX_NAME_CHARACTERS)
        # The kind of the server's open block; empty between blocks.
        self._kind = ""
        self._block_index: object = None
        self._begun: list[object] = []
        self._arguments = Arguments()
        self._halves = Halves()
        self._thoughts = ThoughtSplitter()
        # The last block is a tool call without its end.
        self._is_cut = False
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._applied_edits: list[pb.AppliedEdit] = []

    @property
    def is_complete(self) -> bool:
        return self.is_done or (self._reason is not None and not self._kind)

    def _feed(self, event: ServerEvent) -> None:
        if event.data.strip() == "[DONE]":
            return
        data = parse_event(event)
        if data is None:
            return
        match "error" if event.name == "error" else data.get("type") or event.name:
            case "message_start":
                self._start(as_object(data.get("message")))
            case kind if self._is_warm_up and str(kind).startswith("content_block"):
                return
            case "content_block_start":
                self._begin(data.get("index"), as_object(data.get("content_block")))
            case "content_block_delta":
                self._expect(data.get("index"))
                self._extend(as_object(data.get("delta")))
            case "content_block_stop":
                # Some servers send this twice.
                if self._kind:
                    self._end()
            case "message_delta":
                self._note_end(
                    {**data, **as_object(data.get("delta"))}, as_object(data.get("usage"))
                )
                self._applied_edits += edits_in(data)
            case "message_stop":
                self.is_done = True
            case "error":
                raise RefusedInStreamError(details_of(data) or {"message": "no reason given"})
            case _:
                # Pings, and events that a later version of the API may add.
                if data.get("type") is None and (details := details_of(data)):
                    raise RefusedInStreamError(details)

    def whole(self, document: Any) -> None:
        message = as_object(document)
        if message.get("type") == "error" or not isinstance(message.get("content"), list):
            details = details_of(message)
            if details:
                raise RefusedInStreamError(details)
            raise BrokenAnswerError("it is no message")
        self._start(message)
        for index, block in enumerate([] if self._is_warm_up else message["content"]):
            self._begin(index, as_object(block))
            self._end()
        self._note_end(message, {})
        self._applied_edits += edits_in(message)
        self.is_done = True

    def finish(self) -> pb.Usage:
        if self._kind and self.is_done:
            # The end of the message is the end of its last block, too.
            self._end()
        if not self._started or self._reason is None or self._kind:
            raise BrokenAnswerError("it ended before it was complete")
        if self._is_cut:
            if ending_of(self._reason) not in (Ending.CUT, Ending.WINDOW):
                raise BrokenAnswerError(_CUT_CALL)
            self._writer.abandon()
        self._writer.close()
        is_counted = prompt_tokens(anthropic_usage(self._usage)) > 0
        return self._emit_finished(
            self._known_usage(),
            self._reason_for(self._reason),
            is_counted=is_counted,
            applied_edits=self._applied_edits,
        )

    def _start(self, message: Mapping[str, Any]) -> None:
        if not self._started:
            self._usage = dict(as_object(message.get("usage")))
            self._emit_started(self._known_usage())

    def _known_usage(self) -> pb.Usage:
        usage = anthropic_usage(self._usage)
        if not prompt_tokens(usage):
            usage.input_tokens = self._estimated_tokens
        return usage

    def _expect(self, index: object) -> None:
        """A delta must belong to the open block; an index that no block has says nothing."""
        if not self._kind or (index != self._block_index and index in self._begun):
            raise BrokenAnswerError("a delta of a block that is not open")

    def _begin(self, index: object, block: Mapping[str, Any]) -> None:
        if not self._started:
            raise BrokenAnswerError("a block before the message")
        self.has_begun = True
        if self._kind:
            self._end()
        if self._is_cut:
            raise BrokenAnswerError(_CUT_CALL)
        self._kind = without_halves(str(block.get("type") or _kind_of(block)))
        self._block_index = index
        self._begun.append(index)
        match self._kind:
            case "text":
                self._text(self._halves.feed(str(block.get("text") or "")))
            case "thinking":
                self._writer.thinking(self._halves.feed(str(block.get("thinking") or "")))
                self._sign(block)
            case "redacted_thinking":
                state = ReasoningState(self._target.model, redacted=str(block.get("data") or ""))
                self._writer.carry(state.signature())
            case "tool_use":
                self._begin_call(block)
            case kind:
                # The contract has no such block; mostly it is a result of the server's own tools.
                log.warning("a block of the response is left out", kind=kind)

    def _sign(self, holder: Mapping[str, Any]) -> None:
        self._writer.sign(without_halves(str(holder.get("signature") or "")))

    def _begin_call(self, block: Mapping[str, Any]) -> None:
        name = without_halves(str(block.get("name") or ""))
        if not name:
            raise BrokenAnswerError("a tool call without a name")
        call_id = self._ids.client_id(str(block.get("id") or ""))
        self._writer.begin_tool_use(call_id, self._names.original(name))
        self._arguments = Arguments()
        # An input that comes with the start is the whole input, or an empty one before the real.
        self._extend_call(block.get("input"))

    def _extend_call(self, piece: object) -> None:
        text = text_of(piece)
        if self._arguments.extends(text):
            self._arguments.feed(text)
            self._writer.input_json(self._arguments.take())
        elif not self._arguments.repeats(text):
            raise BrokenAnswerError("the input of a tool call goes on after its end")

    def _extend(self, delta: Mapping[str, Any]) -> None:
        if delta.get("partial_json") and self._kind in ("text", "thinking"):
            raise BrokenAnswerError("the input of a tool call in a block of another kind")
        text = self._halves.feed(str(delta.get("text") or delta.get("thinking") or ""))
        match self._kind:
            # Some servers send thoughts as text deltas of a thinking block, and the reverse.
            case "thinking":
                self._writer.thinking(text)
                self._sign(delta)
            case "text" if delta.get("thinking"):
                self._writer.thinking(text)
            case "text":
                self._text(text)
            case "tool_use":
                pieces = (delta.get(name) for name in ("partial_json", "input", "arguments"))
                self._extend_call(next((piece for piece in pieces if piece is not None), text))

    def _text(self, text: str) -> None:
        """Adds text, in which some servers send the model's thoughts between tags."""
        self._add(self._thoughts.feed(text))

    def _add(self, pieces: Iterable[Piece]) -> None:
        for is_thought, piece in pieces:
            if is_thought:
                self._writer.thinking(piece)
            else:
                self._writer.text(piece)

    def _end(self) -> None:
        rest = self._halves.finish()
        match self._kind:
            case "thinking":
                self._writer.thinking(rest)
            case "text":
                self._text(rest)
                self._add(self._thoughts.finish())
            case "tool_use":
                try:
                    self._writer.input_json(self._arguments.settle())
                except ValueError:
                    # The stop reason will tell whether it was cut at max_tokens.
                    self._is_cut = True
        if not self._is_cut:
            self._writer.close()
        self._kind = ""

    def _note_end(self, delta: Mapping[str, Any], usage: Mapping[str, Any]) -> None:
        reason = delta.get("stop_reason")
        if isinstance(reason, str):
            if ending_of(reason) is Ending.FAILED:
                raise RefusedInStreamError({"message": f"it ended its answer with {reason!r}"})
            self._reason = reason
        sequence = delta.get("stop_sequence")
        if isinstance(sequence, str):
            self._stop_sequence = sequence
        self._usage |= {key: value for key, value in usage.items() if value is not None}

    def _reason_for(self, reason: str) -> pb.StopReason:
        if reason == "pause_turn":
            return pb.STOP_REASON_PAUSE_TURN
        if reason == "stop_sequence" and self._stop_sequence:
            return pb.STOP_REASON_STOP_SEQUENCE
        limit = self._target.answer_tokens(self._request.max_tokens)
        if reason == "end_turn" and anthropic_usage(self._usage).output_tokens >= limit:
            # vllm-mlx reports end_turn for every stream.
            return self._stop_reason(Ending.CUT)
        return self._stop_reason(ending_of(reason))


def _kind_of(block: Mapping[str, Any]) -> str:
    """The kind of a block without a type, by its fields."""
    kinds = {"name": "tool_use", "thinking": "thinking", "signature": "thinking"}
    return next((kind for field, kind in kinds.items() if block.get(field)), "text")
