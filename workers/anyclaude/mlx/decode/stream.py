"""Turns the tokens of one answer into block events.

Text and thinking are sent as they arrive. So is a call that a grammar constrains, since every part
of it is certain. Any other call is buffered to its end and sent whole, because a call that turns
out malformed must not begin.

A call that `max_tokens` cuts off never gets an end: if parts of it were sent, its block stays open.
Because half a call is of no use, a call that begins when few tokens are left is buffered as well.
"""

import re
import secrets
import string
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import count

from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.call_writer import CallWriter
from anyclaude.mlx.decode.calls import MALFORMED, Call, CallReader, Result, Unreadable
from anyclaude.mlx.decode.constraint import AnswerGrammar, ReadingError
from anyclaude.mlx.decode.loops import LoopLimits, LoopWatch
from anyclaude.mlx.decode.markers import Mode, Transition, marker_tokens, markers_of, silent_tokens
from anyclaude.mlx.decode.mentions import Mentions
from anyclaude.mlx.decode.notations import family_of
from anyclaude.mlx.decode.open_calls import BufferedCall, ConstrainedCall
from anyclaude.mlx.decode.repairs import Repair, RepairCounts
from anyclaude.mlx.decode.sampling import ThinkingBudget
from anyclaude.mlx.decode.scanner import Event, Scanner, Stopped, Switch, Text
from anyclaude.worker.v1.worker_pb2 import GenerateResponse

_ID_CHARACTERS = string.ascii_letters + string.digits
# The beginning of a call, behind another one.
_MARKUP = re.compile(r"\s*[\[\]{}<,]")
# A detokenizer writes this for a character whose bytes are incomplete.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# A call that begins with fewer tokens left may well be cut off, so it is sent at its end.
MIN_STREAMED_CALL_TOKENS = 512


def new_tool_use_id() -> str:
    return "toolu_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(24))


def tool_use_ids(message_id: str) -> Callable[[], str]:
    """Makes the ids of the calls in a message: the same ones if it is generated again."""
    numbers = count()

    def new_id() -> str:
        return "toolu_" + sha256(f"{message_id} {next(numbers)}".encode()).hexdigest()[:24]

    return new_id


class BlockStream:
    """One answer, from tokens to events.

    Args:
        tools: what the client offered. Calls are read only if there are tools and `tool_choice`
            does not forbid them.
        stop_sequences: are searched for in the decoded text, outside thinking and calls.
        in_thinking: whether the prompt has already opened a thinking block.
        grammar: what constrains the answer's tokens.
        budget: ends the thinking after so many tokens.
        max_tokens: the number of tokens after which the answer is cut off, if it is known.
        loops: when the answer counts as a loop; None if it never does.
        retries: whether the model may try again after a call that cannot be read.
        repairs: counts what is repaired.
        new_id: makes the id of a tool_use block.
    """

    def __init__(
        self,
        tokenizer: TokenizerWrapper,
        tools: Sequence[Tool],
        stop_sequences: Sequence[str],
        *,
        tool_choice: ToolChoice = ToolChoice(),  # noqa: B008 - frozen
        in_thinking: bool = False,
        grammar: AnswerGrammar | None = None,
        budget: ThinkingBudget | None = None,
        max_tokens: int | None = None,
        loops: LoopLimits | None = None,
        retries: bool = True,
        repairs: RepairCounts | None = None,
        new_id: Callable[[], str] = new_tool_use_id,
    ) -> None:
        callable_tools = _callable_tools(tools, tool_choice, tokenizer)
        self._names = [tool.name for tool in callable_tools]
        markers = markers_of(tokenizer, self._names, in_thinking=in_thinking)
        self._mentions = Mentions(marker_tokens(tokenizer, markers))
        self._scanner = Scanner(markers, stop_sequences, self._is_mention)
        self._silent = silent_tokens(tokenizer, markers, stop_sequences)
        self._think_end = _only_token(tokenizer.think_end_tokens)
        # Set if the end marker is one token; its text is then never what the model meant to say.
        is_token = _only_token(tokenizer.tool_call_end_tokens) is not None
        self._has_end_marker = bool(tokenizer.tool_call_end)
        self._call_end = str(tokenizer.tool_call_end) if is_token else None
        self._detokenizer = tokenizer.detokenizer
        self._repairs = RepairCounts() if repairs is None else repairs
        self._reader = (
            CallReader(tokenizer, callable_tools, self._repairs) if callable_tools else None
        )
        self._writer = BlockWriter()
        self._calls = CallWriter(
            self._writer,
            new_id,
            self._repairs,
            None if loops is None else LoopWatch(loops),
            retries=retries,
            parallel=not tool_choice.disable_parallel_tool_use,
        )
        self._unmarked_first = family_of(tokenizer).unmarked_first
        self._grammar = grammar
        self._budget = budget
        self._tokens_left = max_tokens
        # The constrained call that is being written, and the buffer of any other.
        self._constrained: ConstrainedCall | None = None
        self._buffered = BufferedCall()
        # The marker of the call that is being written, if the model may only have named it.
        self._named: str | None = None
        # Whether words for the user came.
        self._has_said = False
        # The stop sequence that was found. No more events follow it.
        self.stop_sequence: str | None = None

    @property
    def loop(self) -> str | None:
        """Why the answer is a loop and must end; None if it is none. No more tokens may follow."""
        return self._calls.loop

    @property
    def has_tool_use(self) -> bool:
        """Whether a complete tool_use block was sent."""
        return self._calls.has_tool_use

    @property
    def is_verbatim(self) -> bool:
        """Whether the client received exactly what the model wrote."""
        return self._calls.is_verbatim

    def push(self, token_id: int) -> list[GenerateResponse]:
        """Reads one token, which is not an end-of-answer token, and returns the events to send."""
        if self._grammar is not None:
            self._grammar.constraint.observe(token_id)
        if self._tokens_left is not None:
            self._tokens_left -= 1
        if self._is_silent(token_id):
            self._calls.is_verbatim = False
        else:
            self._mentions.observe(token_id)
            self._detokenizer.add_token(token_id)
            self._feed(self._detokenizer.last_segment)
        if self._budget is not None:
            self._budget.observe(token_id, thinking=self._scanner.mode is Mode.THINKING)
        self._calls.watch(token_id, is_code=self.is_in_call or self._mentions.in_fence)
        return self._writer.drain()

    def finish(self, *, cut: bool) -> list[GenerateResponse]:
        """Ends the answer and returns the events that were delayed.

        Args:
            cut: whether `max_tokens` ended it, so that a call without its end is incomplete.
        """
        self._detokenizer.finalize()
        self._feed(self._detokenizer.last_segment.rstrip(_REPLACEMENT))
        while self._scanner.mode is Mode.CALL:
            self._end_open_call(cut=cut)
        self._handle(self._scanner.flush())
        self._writer.close()
        if self.loop is not None and not cut:
            self._calls.say(f"The answer was ended, since {self.loop}.")
        return self._writer.drain()

    @property
    def is_in_call(self) -> bool:
        """Whether a call has begun that has no end yet."""
        return self._scanner.mode is Mode.CALL

    def _is_silent(self, token_id: int) -> bool:
        if self._scanner.owes_think_end and token_id == self._think_end:
            return False
        return token_id in self._silent.get(self._scanner.mode, ())

    def _feed(self, text: str) -> None:
        self._handle(self._scanner.feed(text))

    def _handle(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Text(mode, text):
                    self._handle_text(mode, text)
                case Switch():
                    self._switch(event)
                case Stopped(sequence):
                    self.stop_sequence = sequence

    def _handle_text(self, mode: Mode, text: str) -> None:
        match mode:
            case Mode.TEXT:
                self._mentions.add_text(mode, text)
                self._has_said = self._has_said or bool(text.strip())
                self._writer.text(text)
            case Mode.THINKING:
                self._mentions.add_text(mode, text)
                self._writer.thinking(text)
            case Mode.CALL if self._constrained is not None:
                self._calls.stream(self._constrained, self._constrained.reader.feed(text))
            case Mode.CALL:
                self._buffered.add(text)
            case Mode.HEADER:
                pass

    def _switch(self, switch: Switch) -> None:
        if switch.left is Mode.CALL:
            if self._constrained is not None:
                self._leave_constrained_call(self._constrained, switch)
            else:
                self._leave_buffered_call(switch)
            return
        self._mentions.enter(switch.entered)
        if switch.entered is Mode.CALL:
            self._repairs[Repair.MISSING_START_MARKER] += switch.kept
            self._constrained = self._begin_constrained_call()
        # The text before a marker that turns out to be only named goes on behind it.
        self._named = self._named_by(switch)
        if switch.left is not switch.entered and self._named is None:
            self._writer.close()

    def _named_by(self, switch: Switch) -> str | None:
        """The marker that began a call, if it may be only named: it came in ordinary tokens."""
        is_spelled = switch.left is Mode.TEXT and not self._mentions.was_token
        if switch.entered is not Mode.CALL or not is_spelled or self._constrained is not None:
            return None
        return switch.line_ends + ("" if switch.kept else switch.marker)

    def _is_mention(self, marker: Transition, mode: Mode, before: str) -> bool:
        # A marker that began a grammar began a call.
        constrained = self._grammar is not None and self._grammar.constraint.is_active
        if marker.kept and mode is Mode.THINKING and not constrained:
            return True
        if marker.kept and self._unmarked_first and (self._has_said or before.strip()):
            return True
        mentioned = self._mentions.is_mention(marker, mode, before) and not constrained
        self._repairs[Repair.MENTIONED_MARKER] += mentioned
        return mentioned

    # Calls that a grammar constrains

    def _begin_constrained_call(self) -> ConstrainedCall | None:
        grammar = self._grammar
        if grammar is None or grammar.new_reader is None or not grammar.constraint.is_active:
            return None
        left = self._tokens_left
        streamed = left is None or left >= MIN_STREAMED_CALL_TOKENS
        return ConstrainedCall(grammar.new_reader(), streamed=streamed)

    def _leave_constrained_call(self, call: ConstrainedCall, switch: Switch) -> None:
        if not call.reader.may_end:
            # The end marker is part of a value.
            self._calls.stream(call, call.reader.feed(switch.marker))
            self._scanner.undo_switch(switch)
            return
        self._calls.stream(call, call.reader.finish())
        self._constrained = None

    def _end_constrained_call(self, call: ConstrainedCall, *, cut: bool) -> None:
        """Ends a call whose end marker did not come."""
        self._constrained = None
        if not cut:
            try:
                self._calls.stream(call, call.reader.finish())
            except ReadingError:
                # Without its grammar the model wrote something else than a call. What was sent of
                # it cannot be taken back: the answer fails, and the client asks again.
                if call.streamed and call.name is not None:
                    raise
                self._calls.send([Unreadable(call.name, MALFORMED)], call.written)
        else:
            self._calls.cut_off(call)

    # Calls that are buffered

    def _leave_buffered_call(self, switch: Switch) -> None:
        if self._buffered.may_continue and self._is_inside_value():
            self._buffered.add_marker(switch.marker)
            self._scanner.undo_switch(switch)
            return
        if self._is_only_named():
            self._take_as_text(switch.marker)
            return
        calls, words = self._divided()
        if not self._end_buffered_call(calls):
            self._end_at_first_marker(switch.marker)
        elif words:
            self._repairs[Repair.MISSING_END_MARKER] += 1
            self._scanner.rescan(words)

    def _end_open_call(self, *, cut: bool) -> None:
        """Ends a call whose end marker did not come."""
        if self._constrained is not None:
            self._end_constrained_call(self._constrained, cut=cut)
            self._scanner.discard()
            return
        calls, words = self._divided()
        if cut and not words:
            self._buffered = BufferedCall()
            self._scanner.discard()
        elif self._is_only_named():
            self._take_as_text("")
        elif self._end_buffered_call(calls):
            self._repairs[Repair.MISSING_END_MARKER] += self._has_end_marker
            self._scanner.discard()
            # What looks like markup is half of the next call.
            self._scanner.rescan("" if cut and _MARKUP.match(words) else words)
            self._feed("")
        else:
            self._end_at_first_marker("")
            self._feed("")

    def _end_buffered_call(self, calls: str) -> bool:
        """Sends `calls`; False if they end at their first end marker and have to be read again."""
        results = self._calls_in(calls)
        if self._buffered.was_continued and (
            self._is_inside_value() or not all(isinstance(result, Call) for result in results)
        ):
            return False
        self._calls.send(results, calls)
        self._buffered = BufferedCall(may_continue=self._buffered.may_continue)
        return True

    def _is_only_named(self) -> bool:
        """Whether what follows the start marker is no call of any tool, but words."""
        if self._named is None:
            return False
        return all(_names_no_tool(result) for result in self._calls_in(self._buffered.text))

    def _take_as_text(self, end: str) -> None:
        """Sends the markers, and the text between them, as text."""
        text = f"{self._named}{self._buffered.text}{end}"
        self._repairs[Repair.MENTIONED_MARKER] += 1
        self._buffered = BufferedCall()
        self._scanner.resume_text()
        self._handle_text(Mode.TEXT, text)

    def _end_at_first_marker(self, marker: str) -> None:
        """Sends the call up to its first end marker; what follows that marker is text again."""
        call, rest = self._buffered.divided()
        self._buffered = BufferedCall(may_continue=False)
        self._calls.send(self._calls_in(call), call)
        text = rest + marker
        self._scanner.rescan(text.replace(self._call_end, "") if self._call_end else text)

    def _is_inside_value(self) -> bool:
        return self._reader is not None and self._reader.is_open(self._buffered.text)

    def _divided(self) -> tuple[str, str]:
        """The text of the buffered calls, and the words behind the end of the last of them."""
        text = self._buffered.text
        return self._reader.divided(text) if self._reader is not None else (text, "")

    def _calls_in(self, text: str) -> Sequence[Result]:
        """The calls in `text`; one that cannot be read if there are none."""
        return self._reader.read(text) if self._reader is not None else []


def _names_no_tool(result: Result) -> bool:
    return isinstance(result, Unreadable) and result.name is None


def _only_token(token_ids: Sequence[int] | None) -> int | None:
    return int(token_ids[0]) if token_ids is not None and len(token_ids) == 1 else None


def _callable_tools(
    tools: Sequence[Tool], tool_choice: ToolChoice, tokenizer: TokenizerWrapper
) -> list[Tool]:
    if tool_choice.type == "none" or not tokenizer.has_tool_calling:
        return []
    return [tool for tool in tools if tool.is_client_tool]
