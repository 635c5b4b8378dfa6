"""Turns the chunks of a chat completion, or a whole one, into worker events.

A response is complete when a finish reason or the closing `[DONE]` has come. A response that just
ends is an error, however plausible its text is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.requests import MessagesRequest
from anyclaude.relay.dialect import BrokenAnswerError, RefusedInStreamError, parse_object
from anyclaude.relay.openai.calls import BrokenCallError, CallAssembler
from anyclaude.relay.openai.thoughts import ThoughtSplitter
from anyclaude.relay.refusals import details_of
from anyclaude.relay.sse import ServerEvent
from anyclaude.relay.usage import openai_usage, prompt_tokens
from anyclaude.worker.v1 import worker_pb2 as pb

_DONE: Final = "[DONE]"
# Every other reason is an ordinary end.
_REASONS: Final = {
    "length": pb.STOP_REASON_MAX_TOKENS,
    "max_tokens": pb.STOP_REASON_MAX_TOKENS,
    "content_filter": pb.STOP_REASON_REFUSAL,
}


class ChatReader:
    """Reads one response; see `anyclaude.relay.dialect.Reader`."""

    def __init__(
        self,
        request: MessagesRequest,
        *,
        estimated_tokens: int,
        window_limited: bool = False,
        on_usage: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        """
        Args:
            request: the client's request.
            estimated_tokens: of the prompt, until the server reports its count.
            window_limited: max_tokens was lowered to fit into the context window.
            on_usage: called at the end with the prompt's true count, or None without one.
        """
        self._request = request
        self._estimated_tokens = estimated_tokens
        self._window_limited = window_limited
        self._on_usage = on_usage
        self._writer = BlockWriter()
        self._calls = CallAssembler(self._writer, _used_ids(request))
        self._thoughts = ThoughtSplitter()
        self._started = False
        self._has_content = False
        self._reason: str | None = None
        self._stop_sequence = ""
        self._done = False
        self._usage: pb.Usage | None = None
        self._characters = 0
        # Text that came in the middle of a tool call.
        self._late: list[str] = []
        # max_tokens 0 only fills the cache; the token that was generated for it is not emitted.
        self._is_warm_up = request.max_tokens == 0

    @property
    def has_begun(self) -> bool:
        return self._has_content

    @property
    def is_done(self) -> bool:
        return self._done

    @property
    def is_complete(self) -> bool:
        return self._done or self._reason is not None

    def take(self) -> list[pb.GenerateResponse]:
        return self._writer.drain()

    def feed(self, event: ServerEvent) -> None:
        if event.data.strip() == _DONE:
            self._done = True
            return
        chunk = parse_object(event.data)
        choice = _first(chunk)
        self._check(event.name, chunk, choice)
        self._take(chunk, choice, "delta")

    def whole(self, document: Any) -> None:
        if not isinstance(document, dict):
            raise BrokenAnswerError("it is not a JSON object")
        choice = _first(document)
        self._check("", document, choice)
        if not document.get("choices"):
            raise BrokenAnswerError("it has no choices")
        self._take(document, choice, "message")
        self._done = True

    def finish(self) -> pb.Usage:
        if not self._done and self._reason is None:
            raise BrokenAnswerError("it ended before it was complete")
        if not self._started:
            raise BrokenAnswerError("it was empty")
        self._text(self._thoughts.finish())
        self._settle()
        self._writer.text("".join(self._late))
        self._writer.close()
        finished = self._finished()
        self._writer.add(pb.GenerateResponse(finished=finished))
        return finished.usage

    @staticmethod
    def _check(name: str, chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        details = details_of(chunk)
        if not details and "error" in choice:
            details = details_of({"error": choice["error"]})
        if details or name == "error" or choice.get("finish_reason") == "error":
            raise RefusedInStreamError(details or {"message": "no reason given"})

    def _take(self, chunk: Mapping[str, Any], choice: Mapping[str, Any], where: str) -> None:
        if "usage" in chunk or "timings" in chunk:
            self._note_usage(chunk)
        if not choice:
            return
        if not self._started:
            self._started = True
            started = pb.Started(usage=self._known_usage())
            self._writer.add(pb.GenerateResponse(started=started))
        delta = choice.get(where)
        # Some servers repeat the whole message at the end of a stream.
        if not isinstance(delta, dict) and not self._characters:
            delta = choice.get("message")
        reason = choice.get("finish_reason")
        is_over = self._is_warm_up or (self._reason and not _object(delta).get("tool_calls"))
        if isinstance(delta, dict) and not is_over:
            self._content(delta, is_last=bool(reason))
        if reason or "stop_reason" in choice:
            self._note_reason(choice, reason)

    def _content(self, delta: Mapping[str, Any], *, is_last: bool) -> None:
        texts, thoughts = _texts(delta.get("content"))
        thought = (
            delta.get("reasoning_content")
            or delta.get("reasoning")
            or delta.get("thinking")
            or thoughts
        )
        if isinstance(thought, str) and thought:
            self._has_content = True
            self._characters += len(thought)
            self._writer.thinking(thought)
        if texts:
            self._has_content = True
            self._characters += len(texts)
            self._text(self._thoughts.feed(texts))
        calls = delta.get("tool_calls")
        if isinstance(calls, list) and calls:
            self._has_content = True
            self._text(self._thoughts.finish())
            self._guarded(lambda: self._calls.feed(calls, is_last=is_last))
        refusal = delta.get("refusal")
        if isinstance(refusal, str):
            self._text([(False, refusal)])

    def _text(self, pieces: Sequence[tuple[bool, str]]) -> None:
        for is_thought, piece in pieces:
            if is_thought:
                self._writer.thinking(piece)
                continue
            self._words(piece)

    def _words(self, piece: str) -> None:
        if self._calls.is_open:
            self._late.append(piece)
            return
        if self._writer.has_tool_use and not self._writer.in_text:
            # Line ends around the markup of a tool call are not text.
            if not piece.strip():
                return
            self._settle()
        self._writer.text(piece)

    def _settle(self) -> None:
        self._guarded(self._calls.settle)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BrokenCallError as error:
            cut = "it was cut at max_tokens: " if self._reason == "length" else ""
            raise BrokenAnswerError(f"{cut}{error}") from None

    def _note_reason(self, choice: Mapping[str, Any], reason: object) -> None:
        if self._reason is None and isinstance(reason, str) and reason:
            self._reason = reason
        # vLLM reports the stop sequence that matched.
        matched = choice.get("stop_reason")
        if isinstance(matched, str) and matched in self._request.stop_sequences:
            self._stop_sequence = matched

    def _note_usage(self, chunk: Mapping[str, Any]) -> None:
        usage, timings = chunk.get("usage"), chunk.get("timings")
        counts = openai_usage(_object(usage), _object(timings))
        if counts is not None:
            self._usage = counts

    def _known_usage(self) -> pb.Usage:
        return self._usage or pb.Usage(input_tokens=self._estimated_tokens)

    def _finished(self) -> pb.Finished:
        usage = pb.Usage()
        usage.CopyFrom(self._known_usage())
        if self._usage is None:
            usage.output_tokens = max(1, self._characters // 4)
        self._on_usage(prompt_tokens(usage) if self._usage else None)
        if self._is_warm_up:
            usage.output_tokens = 0
        return pb.Finished(
            stop_reason=self._stop_reason(), stop_sequence=self._stop_sequence, usage=usage
        )

    def _stop_reason(self) -> pb.StopReason:
        if self._is_warm_up:
            return pb.STOP_REASON_MAX_TOKENS
        reason = _REASONS.get(self._reason or "")
        if reason == pb.STOP_REASON_MAX_TOKENS and self._window_limited:
            return pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED
        if reason is not None:
            return reason
        if self._writer.has_tool_use:
            return pb.STOP_REASON_TOOL_USE
        return pb.STOP_REASON_STOP_SEQUENCE if self._stop_sequence else pb.STOP_REASON_END_TURN


def _used_ids(request: MessagesRequest) -> frozenset[str]:
    return frozenset(
        str(block.get("id"))
        for message in request.messages
        for block in message.blocks()
        if block["type"] == "tool_use"
    )


def _first(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first choice; no other was requested."""
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) and not first.get("index") else {}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(content: Any) -> tuple[str, str]:
    """The text and the thoughts in a content; Mistral's servers send a list of parts."""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        return "", ""
    parts = [part for part in content if isinstance(part, dict)]
    words = [str(part.get("text") or "") for part in parts if part.get("type") == "text"]
    thoughts = [_texts(part.get("thinking"))[0] for part in parts if part.get("type") == "thinking"]
    return "".join(words), "".join(thoughts)
