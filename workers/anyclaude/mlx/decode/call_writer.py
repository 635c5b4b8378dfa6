"""Sends the calls of one answer, as blocks.

A call that cannot be read is sent as a call of `unreadable_call_of_NAME`, a tool that does not
exist, with the reason and what the model wrote. The client runs nothing and answers "No such tool",
so the model sees its mistake and tries again. A call of the real tool with made-up arguments might
be run, and a sentence in the answer would end the turn. If the model failed several times in a row,
a sentence does end it.
"""

import json
from collections.abc import Callable, Iterable, Sequence

import structlog

from anyclaude.messages.blocks import BlockWriter
from anyclaude.mlx.decode.calls import Call, Result, UnknownTool, Unreadable
from anyclaude.mlx.decode.constraint import ArgumentsPiece, CallBegin, CallEnd, CallEvent
from anyclaude.mlx.decode.loops import LoopWatch
from anyclaude.mlx.decode.open_calls import ConstrainedCall
from anyclaude.mlx.decode.repairs import Repair, RepairCounts

_UNREADABLE = "unreadable_call"
# The reasons that are shown where an answer is ended.
_REPEATED_TEXT = "it repeated the same text again and again"
_REPEATED_CALL = "it repeated the same call again and again"

_log = structlog.get_logger(__name__)


def unreadable_name(tool: str | None) -> str:
    """The name of the tool that does not exist, for a call of `tool` that cannot be read."""
    return f"{_UNREADABLE}_of_{tool}"[:128] if tool else _UNREADABLE


class CallWriter:
    """Writes calls, and watches for an answer that repeats itself.

    Args:
        new_id: makes the id of a tool_use block.
        repairs: counts what is repaired.
        loops: when the answer counts as a loop; None if it never does.
        retries: whether the model may try again after a call that cannot be read.
        parallel: whether the client allows several calls.
    """

    def __init__(
        self,
        writer: BlockWriter,
        new_id: Callable[[], str],
        repairs: RepairCounts,
        loops: LoopWatch | None,
        *,
        retries: bool,
        parallel: bool,
    ) -> None:
        self._writer = writer
        self._new_id = new_id
        self._repairs = repairs
        self._loops = loops
        self._retries = retries
        self._parallel = parallel
        # Why the answer is a loop and must end; None if it is none.
        self.loop: str | None = None
        # Whether a complete tool_use block was sent.
        self.has_tool_use = False
        # Whether the client received exactly what the model wrote.
        self.is_verbatim = True

    def watch(self, token_id: int, *, is_code: bool) -> None:
        """Notices text that repeats itself."""
        if self._loops is not None and self._loops.is_loop(token_id, is_code=is_code):
            self._end_as_loop(Repair.REPEATED_TEXT, _REPEATED_TEXT)

    def say(self, sentence: str) -> None:
        """Sends a sentence of the service in a block of its own."""
        self._writer.close()
        self._writer.text(f"[{sentence}]")
        self._writer.close()

    def stream(self, call: ConstrainedCall, events: Iterable[CallEvent]) -> None:
        """Sends the next parts of calls that a grammar constrains."""
        for event in events:
            match event:
                case CallBegin(name):
                    call.name = name
                    if call.streamed:
                        self._writer.begin_tool_use(self._new_id(), name)
                case ArgumentsPiece(piece):
                    call.pieces.append(piece)
                    if call.streamed:
                        self._writer.input_json(piece)
                case CallEnd():
                    self._end(call)

    def cut_off(self, call: ConstrainedCall) -> None:
        """Leaves the block of a call that `max_tokens` cut off without an end."""
        if call.name is None:
            return
        if not call.streamed:
            self._writer.begin_tool_use(self._new_id(), call.name)
            self._writer.input_json(call.written)
        self._writer.abandon()

    def send(self, results: Sequence[Result], written: str) -> None:
        """Sends calls that are whole.

        Args:
            written: what the model wrote, from which `results` were read.
        """
        for result in results:
            if self.loop is not None:
                return
            if self.has_tool_use and not self._parallel:
                self._repairs[Repair.SECOND_CALL] += 1
                self.is_verbatim = False
                self.say(f"A call to `{result.name}` was not made: the client allows one.")
                continue
            match result:
                case Call(name, input_json):
                    self._make(name, input_json)
                case UnknownTool(name, input_json):
                    self._report(Repair.UNKNOWN_TOOL, None, "no tool of that name was offered")
                    self._make_failed(name, input_json)
                case Unreadable(name, reason):
                    self._report(Repair.UNREADABLE_CALL, name, reason)
                    problem = {
                        "error": f"The call could not be read: {reason}. Write it again.",
                        "written": written,
                    }
                    self._make_failed(unreadable_name(name), json.dumps(problem))

    def _end(self, call: ConstrainedCall) -> None:
        assert call.name is not None
        if call.streamed:
            self._writer.close()
            self._note(call.name, call.written)
        else:
            self._make(call.name, call.written)
        call.name = None
        call.pieces.clear()

    def _make(self, name: str, input_json: str) -> None:
        self._writer.tool_use(self._new_id(), name, input_json)
        self._note(name, input_json)

    def _make_failed(self, name: str, input_json: str) -> None:
        """Sends a call whose error tells the model what was wrong, unless it failed too often."""
        self.is_verbatim = False
        if self._retries:
            self._make(name, input_json)
        else:
            self.say(f"A call failed several times in a row; the last was `{name}`: {input_json}")

    def _note(self, name: str, input_json: str) -> None:
        self.has_tool_use = True
        if self._loops is not None and self._loops.is_repeated(name, input_json):
            self._end_as_loop(Repair.REPEATED_CALL, _REPEATED_CALL)

    def _end_as_loop(self, kind: Repair, reason: str) -> None:
        if self.loop is None:
            _log.warning("answer_repeats_itself", kind=kind.value, reason=reason)
            self._repairs[kind] += 1
            self.loop = reason
            self.is_verbatim = False

    def _report(self, kind: Repair, offered: str | None, reason: str) -> None:
        # A name that was not offered is text of the model, and text is never logged.
        self._repairs[kind] += 1
        _log.warning("tool_call_not_made", tool=offered, reason=reason)
