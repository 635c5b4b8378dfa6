"""Turns the chunks of a chat completion, or a whole one, into worker events.

A response is complete when a finish reason or the closing `[DONE]` has come. A response that just
ends is an error, however plausible its text is. Text and calls after the finish reason belong to
the answer: some servers send a reason with every chunk.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from anyclaude.messages.requests import MessagesRequest
from anyclaude.messages.schemas import as_object
from anyclaude.relay.dialect import (
    BrokenAnswerError,
    Reader,
    RefusedInStreamError,
    Target,
    parse_event,
)
from anyclaude.relay.endings import Ending, ending_of
from anyclaude.relay.halves import Halves
from anyclaude.relay.names import CallIds, ToolNames, used_ids
from anyclaude.relay.openai.calls import BrokenCallError, CallAssembler
from anyclaude.relay.refusals import details_of
from anyclaude.relay.sse import ServerEvent
from anyclaude.relay.state import ReasoningState
from anyclaude.relay.thoughts import ThoughtSplitter
from anyclaude.relay.usage import openai_usage
from anyclaude.worker.v1 import worker_pb2 as pb

_DONE: Final = "[DONE]"
_CUTS: Final = (Ending.CUT, Ending.WINDOW)
# Fields of a delta that hold thoughts.
_THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thought")


class ChatReader(Reader):
    """Reads one response; see `anyclaude.relay.dialect.Reader`."""

    def __init__(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        super().__init__(request, target, estimated_tokens, on_usage)
        self._state = ReasoningState(target.model)
        # The state that the client has got.
        self._carried = ""
        names = ToolNames(tool.name for tool in request.tools)
        self._calls = CallAssembler(
            self._writer,
            CallIds(used_ids(request)),
            names,
            self._state.note_call,
            self._carry_state,
        )
        self._thoughts = ThoughtSplitter()
        self._text_halves, self._thought_halves = Halves(), Halves()
        self._ending: Ending | None = None
        # Content came after a finish reason, so that only the end of the stream is one.
        self._goes_on = False
        self._usage: pb.Usage | None = None
        # The text so far, by which a repetition of all of it is recognised.
        self._told: list[str] = []
        self._told_characters = 0
        self._characters = 0
        # Text that came in the middle of a tool call.
        self._late: list[str] = []

    @property
    def is_complete(self) -> bool:
        return self.is_done or (self._ending is not None and not self._goes_on)

    def _feed(self, event: ServerEvent) -> None:
        if event.data.strip(' "').upper() == _DONE:
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
        self._take(document, _with_numbered_calls(choice), "message")
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
            self._guarded(self._calls.settle)
            self._writer.text("".join(self._late))
            self._carry_state()
            self._writer.close()
        usage = pb.Usage()
        usage.CopyFrom(self._known_usage())
        if self._usage is None:
            usage.output_tokens = max(1, self._characters // 4)
        reason = self._stop_reason(self._ending)
        if reason == pb.STOP_REASON_END_TURN and self._stop_sequence:
            reason = pb.STOP_REASON_STOP_SEQUENCE
        return self._emit_finished(usage, reason, is_counted=self._usage is not None)

    @staticmethod
    def _check(name: str, chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        details = details_of(chunk)
        # Groq puts an error beside the choices.
        error = choice.get("error") or as_object(chunk.get("x_groq")).get("error")
        if not details and error:
            details = details_of({"error": error})
        if details or name == "error":
            raise RefusedInStreamError(details or {"message": "no reason given"})

    def _take(self, chunk: Mapping[str, Any], choice: Mapping[str, Any], where: str) -> None:
        usage, timings = as_object(chunk.get("usage")), as_object(chunk.get("timings"))
        self._usage = openai_usage(usage, timings) or self._usage
        if not choice:
            return
        if not self._started:
            self._emit_started(self._known_usage())
        delta = as_object(choice.get(where))
        if not delta and (text := choice.get("text")):
            # A chunk of the older completions.
            delta = {"content": text}
        if not delta:
            delta = as_object(choice.get("message"))
            if self._characters:
                # A whole message at the end of a stream repeats the text that was streamed before.
                delta = {"tool_calls": delta.get("tool_calls")}
        reason = choice.get("finish_reason")
        if not self._is_warm_up:
            self._content(delta, is_last=bool(reason) or self._ending is not None)
        self._note_reason(choice, reason)

    def _content(self, delta: Mapping[str, Any], *, is_last: bool) -> None:
        self._state.note_message(delta)
        texts, thoughts = _texts(delta.get("content"))
        told = (_text_of(delta.get(name)) for name in _THOUGHTS)
        thought = (
            next(filter(None, told), "")
            or thoughts
            or _thoughts_in_details(delta.get("reasoning_details"))
        )
        if self._is_told(texts):
            texts = ""
        if thought:
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
            else:
                self._words(piece)

    def _words(self, piece: str) -> None:
        if self._calls.is_open:
            self._late.append(piece)
            return
        if self._writer.has_tool_use and not self._writer.in_text:
            # Line ends around the markup of a tool call are not text.
            if not piece.strip():
                return
            self._guarded(self._calls.settle)
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

    def _known_usage(self) -> pb.Usage:
        return self._usage or pb.Usage(input_tokens=self._estimated_tokens)


def _first(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """The choice of index 0; no other was requested."""
    choices = chunk.get("choices")
    every = choices if isinstance(choices, list) else [choices]
    return next((one for one in every if isinstance(one, dict) and not one.get("index")), {})


def _with_numbered_calls(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """The choice of a whole response, in which each entry of the list is a call of its own."""
    message = as_object(choice.get("message"))
    calls = [
        {**call, "index": index} if isinstance(call, dict) else call
        for index, call in enumerate(_calls(message))
    ]
    return {**choice, "message": {**message, "tool_calls": calls}}


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
    return "".join(map(_text_of, parts))


def _texts(content: Any) -> tuple[str, str]:
    """The text and the thoughts in a content; Mistral's servers send a list of parts."""
    parts = content if isinstance(content, list) else [content]
    words = [_text_of(part) for part in parts]
    inner = (part.get("thinking") for part in parts if isinstance(part, dict))
    return "".join(words), "".join(_texts(part)[0] for part in inner if part)


def _text_of(part: Any) -> str:
    """The text of a part, which is a string or an object around one."""
    if isinstance(part, dict):
        texts = (part.get(name) for name in ("text", "content", "summary"))
        part = next((text for text in texts if isinstance(text, str)), "")
    return part if isinstance(part, str) else ""
