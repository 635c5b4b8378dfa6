"""Turns the chunks of a chat completion, or a whole one, into worker events.

A response is complete when a finish reason or the closing `[DONE]` has come. A response that just
ends is an error, however plausible its text is. Text and calls after the finish reason belong to
the answer: some servers send a reason with every chunk.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from anyclaude.messages.requests import MessagesRequest
from anyclaude.relay.dialect import (
    BrokenAnswerError,
    Reader,
    RefusedInStreamError,
    parse_event,
)
from anyclaude.relay.endings import Ending, ending_of
from anyclaude.relay.halves import Halves
from anyclaude.relay.names import CallIds, ToolNames, used_ids
from anyclaude.relay.openai.calls import BrokenCallError, CallAssembler
from anyclaude.relay.openai.thoughts import ThoughtSplitter
from anyclaude.relay.refusals import details_of
from anyclaude.relay.sse import ServerEvent
from anyclaude.relay.state import ReasoningState
from anyclaude.relay.usage import openai_usage, prompt_tokens
from anyclaude.worker.v1 import worker_pb2 as pb

_DONE: Final = "[DONE]"
_STOP_REASONS: Final = {
    Ending.CUT: pb.STOP_REASON_MAX_TOKENS,
    Ending.WINDOW: pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED,
    Ending.REFUSED: pb.STOP_REASON_REFUSAL,
}
_CUTS: Final = (Ending.CUT, Ending.WINDOW)


class ChatReader(Reader):
    """Reads one response; see `anyclaude.relay.dialect.Reader`."""

    def __init__(
        self,
        request: MessagesRequest,
        *,
        estimated_tokens: int,
        model: str = "",
        window_limited: bool = False,
        on_usage: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        """
        Args:
            request: the client's request.
            estimated_tokens: of the prompt, until the server reports its count.
            model: the model that answers, to which its reasoning state will go back.
            window_limited: max_tokens was lowered to fit into the context window.
            on_usage: called at the end with the prompt's true count, or None without one.
        """
        self._request = request
        self._estimated_tokens = estimated_tokens
        self._window_limited = window_limited
        self._on_usage = on_usage
        super().__init__()
        self._state = ReasoningState(model)
        # The state that the client has got.
        self._carried = ""
        names = ToolNames(tool.name for tool in request.tools)
        self._calls = CallAssembler(
            self._writer,
            CallIds(used_ids(request)),
            names.sent,
            names.original,
            self._state.note_call,
            self._carry_state,
        )
        self._thoughts = ThoughtSplitter()
        self._text_halves, self._thought_halves = Halves(), Halves()
        self._started = False
        self._ending: Ending | None = None
        # Content came after a finish reason, so that only the end of the stream is one.
        self._goes_on = False
        self._stop_sequence = ""
        self._usage: pb.Usage | None = None
        # The text so far, by which a repetition of all of it is recognised.
        self._told: list[str] = []
        self._told_characters = 0
        self._characters = 0
        # Text that came in the middle of a tool call.
        self._late: list[str] = []
        # max_tokens 0 only fills the cache; the token that was generated for it is not emitted.
        self._is_warm_up = request.max_tokens == 0

    @property
    def is_complete(self) -> bool:
        return self.is_done or (self._ending is not None and not self._goes_on)

    def _feed(self, event: ServerEvent) -> None:
        if event.data.strip() == _DONE:
            self.is_done = True
            return
        chunk = parse_event(event)
        if chunk is None:
            return
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
        self.is_done = True

    def finish(self) -> pb.Usage:
        if not self.is_done and self._ending is None:
            raise BrokenAnswerError("it ended before it was complete")
        if not self._started:
            raise BrokenAnswerError("it was empty")
        self._writer.thinking(self._thought_halves.finish())
        self._text(self._thoughts.feed(self._text_halves.finish()))
        self._text(self._thoughts.finish())
        if self._ending in _CUTS and self._calls.is_cut and not self._late:
            self._guarded(self._calls.cut)
        else:
            self._settle()
            self._writer.text("".join(self._late))
            self._carry_state()
            self._writer.close()
        finished = self._finished()
        self._writer.add(pb.GenerateResponse(finished=finished))
        return finished.usage

    @staticmethod
    def _check(name: str, chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        details = details_of(chunk)
        if not details and choice.get("error"):
            details = details_of({"error": choice["error"]})
        if details or name == "error":
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
        if not isinstance(delta, dict):
            delta = self._unrepeated(_object(choice.get("message")))
        reason = choice.get("finish_reason")
        if not self._is_warm_up:
            self._content(delta, is_last=bool(reason) or self._ending is not None)
        self._note_reason(choice, reason)

    def _unrepeated(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """A whole message at the end of a stream, without the text that was streamed before."""
        if not self._characters:
            return message
        return {"tool_calls": message.get("tool_calls")}

    def _content(self, delta: Mapping[str, Any], *, is_last: bool) -> None:
        self._state.note_message(delta)
        texts, thoughts = _texts(delta.get("content"))
        thought = (
            delta.get("reasoning_content")
            or delta.get("reasoning")
            or delta.get("thinking")
            or thoughts
            or _thoughts_in_details(delta.get("reasoning_details"))
        )
        if self._is_told(texts):
            texts = ""
        if isinstance(thought, str) and thought:
            self._note_content(thought)
            self._writer.thinking(self._thought_halves.feed(thought))
        if texts:
            self._note_content(texts)
            self._told.append(texts)
            self._told_characters += len(texts)
            self._writer.thinking(self._thought_halves.finish())
            self._text(self._thoughts.feed(self._text_halves.feed(texts)))
        if calls := _calls(delta):
            self._note_content("")
            self._text(self._thoughts.feed(self._text_halves.finish()))
            self._text(self._thoughts.finish())
            self._guarded(lambda: self._calls.feed(calls, is_last=is_last))
        refusal = delta.get("refusal")
        if isinstance(refusal, str):
            self._text([(False, refusal)])

    def _is_told(self, text: str) -> bool:
        """Whether `text` is all that was streamed, which some servers repeat after their end."""
        is_over = self._ending is not None and len(self._told) > 1
        return is_over and len(text) == self._told_characters and text == "".join(self._told)

    def _note_content(self, text: str) -> None:
        self.has_begun = True
        self._goes_on = self._goes_on or self._ending is not None
        self._characters += len(text)

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
        if piece.strip() and not self._state.is_empty and not self._writer.in_text:
            self._carry_state()
        self._writer.text(piece)

    def _carry_state(self) -> None:
        """Gives the client the reasoning state that it has not got yet."""
        if self._state.is_empty:
            return
        signature = self._state.signature()
        if signature != self._carried:
            self._carried = signature
            self._writer.carry(signature)

    def _settle(self) -> None:
        self._guarded(self._calls.settle)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BrokenCallError as error:
            raise BrokenAnswerError(str(error)) from None

    def _note_reason(self, choice: Mapping[str, Any], reason: object) -> None:
        # vLLM reports the stop sequence that matched.
        matched = choice.get("stop_reason")
        if isinstance(matched, str) and matched in self._request.stop_sequences:
            self._stop_sequence = matched
        if not isinstance(reason, str) or not reason:
            return
        ending = ending_of(reason)
        if ending is Ending.FAILED:
            raise RefusedInStreamError({"message": f"it ended its answer with {reason!r}"})
        if self._ending in (None, Ending.ORDINARY):
            self._ending = ending

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
        if self._ending is Ending.CUT and self._window_limited:
            return pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED
        if self._ending in _STOP_REASONS:
            return _STOP_REASONS[self._ending]
        if self._writer.has_tool_use:
            return pb.STOP_REASON_TOOL_USE
        return pb.STOP_REASON_STOP_SEQUENCE if self._stop_sequence else pb.STOP_REASON_END_TURN


def _first(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first choice; no other was requested."""
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) and not first.get("index") else {}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _calls(delta: Mapping[str, Any]) -> list[Any]:
    """The pieces of tool calls, also in the field of the time before parallel calls."""
    calls, one = delta.get("tool_calls"), delta.get("function_call")
    if isinstance(calls, dict):
        return [calls]
    if isinstance(calls, list) and calls:
        return calls
    return [{"function": one}] if isinstance(one, dict) and one else []


def _thoughts_in_details(details: Any) -> str:
    """The readable thoughts in `reasoning_details`, where they come in no other field."""
    parts = details if isinstance(details, list) else []
    texts = (part.get("text") or part.get("summary") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


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
