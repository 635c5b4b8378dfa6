"""Turns one answer's tokens into block events.

Text and thinking leave as they come. So does a call that a grammar holds, whose every piece is
certain; any other is gathered to its end and leaves whole, since a bad one must not begin.

A call that `max_tokens` cuts is never ended here: one that was given out in pieces is left open.
Because half a call is of no use, one that begins when few tokens are left is gathered too.
"""

import secrets
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.calls import Call, CallReader, Unreadable
from anyclaude.mlx.decode.constraint import Begin, CallReading, End, Held, Part, Piece
from anyclaude.mlx.decode.markers import Mode, grammar_of, silent_tokens
from anyclaude.mlx.decode.scanner import Event, Scanner, Stopped, Switch, Text
from anyclaude.mlx.decode.thinking import ThinkingBudget
from anyclaude.worker.v1.worker_pb2 import GenerateResponse

_ID_CHARACTERS = string.ascii_letters + string.digits
_NOT_PARALLEL = "was not made: one call at a time was asked for"
# What a detokenizer makes of a character whose bytes are not complete.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# A call that begins with fewer left may well be cut.
ROOM_TO_STREAM_TOKENS = 512

_log = structlog.get_logger(__name__)


def new_tool_use_id() -> str:
    return "toolu_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(24))


class BlockStream:
    """One answer, from tokens to events.

    Args:
        tools: what the client offered; calls are read only when there are any and `tool_choice`
            does not forbid them.
        stop_sequences: matched on decoded text, outside thinking and calls.
        in_thinking: the prompt has already opened the thinking block.
        held: what the answer's tokens are held to.
        budget: ends the thinking in time.
        max_tokens: after how many the answer will be cut, where that is known.
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
        held: Held | None = None,
        budget: ThinkingBudget | None = None,
        max_tokens: int | None = None,
        new_id: Callable[[], str] = new_tool_use_id,
    ) -> None:
        callable_tools = _callable_tools(tools, tool_choice, tokenizer)
        self._names = [tool.name for tool in callable_tools]
        grammar = grammar_of(tokenizer, self._names, in_thinking=in_thinking)
        self._scanner = Scanner(grammar, stop_sequences, grammar.initial)
        self._silent = silent_tokens(tokenizer, grammar, stop_sequences)
        self._think_end = _only_token(tokenizer.think_end_tokens)
        # Where it is a token, its text is never the model's words.
        is_token = _only_token(tokenizer.tool_call_end_tokens) is not None
        self._call_end = str(tokenizer.tool_call_end) if is_token else None
        self._detokenizer = tokenizer.detokenizer
        self._reader = CallReader(tokenizer, callable_tools) if callable_tools else None
        self._parallel = not tool_choice.disable_parallel_tool_use
        self._held = held
        self._budget = budget
        self._tokens_left = max_tokens
        # The held call being written.
        self._live: _Live | None = None
        self._new_id = new_id
        self._writer = BlockWriter()
        self._call = _Gathered()
        self._stop_sequence: str | None = None
        self._has_tool_use = False
        self._ended_in_tool_call = False
        self._is_verbatim = True

    @property
    def stop_sequence(self) -> str | None:
        """The stop sequence that was matched: nothing more will come out."""
        return self._stop_sequence

    @property
    def has_tool_use(self) -> bool:
        """Whether a complete tool_use block was given out."""
        return self._has_tool_use

    @property
    def is_verbatim(self) -> bool:
        """Whether the client was given what the model wrote, and nothing else."""
        return self._is_verbatim

    @property
    def ended_in_tool_call(self) -> bool:
        """Whether the answer was cut inside a call, which was therefore not given out."""
        return self._ended_in_tool_call

    def push(self, token_id: int) -> list[GenerateResponse]:
        """Takes one token, no end-of-answer token, and returns what can leave."""
        if self._held is not None:
            self._held.constraint.observe(token_id)
        if self._tokens_left is not None:
            self._tokens_left -= 1
        if self._is_silent(token_id):
            self._is_verbatim = False
        else:
            self._detokenizer.add_token(token_id)
            self._feed(self._detokenizer.last_segment)
        if self._budget is not None:
            self._budget.observe(token_id, thinking=self._scanner.mode is Mode.THINKING)
        return self._writer.drain()

    def finish(self, *, cut: bool) -> list[GenerateResponse]:
        """Ends the answer and returns what was held back.

        Args:
            cut: `max_tokens` ended it, so a call that is still open is incomplete.
        """
        self._detokenizer.finalize()
        self._feed(self._detokenizer.last_segment.rstrip(_REPLACEMENT))
        while self._scanner.mode is Mode.CALL:
            self._end_open_call(cut=cut)
        self._handle(self._scanner.flush())
        self._writer.close()
        return self._writer.drain()

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
                    self._take_text(mode, text)
                case Switch():
                    self._switch(event)
                case Stopped(sequence):
                    self._stop_sequence = sequence

    def _take_text(self, mode: Mode, text: str) -> None:
        match mode:
            case Mode.TEXT:
                self._writer.text(text)
            case Mode.THINKING:
                self._writer.thinking(text)
            case Mode.CALL if self._live is not None:
                self._give_out(self._live, self._live.reading.feed(text))
            case Mode.CALL:
                self._call.add(text)
            case Mode.HEADER:
                pass

    def _switch(self, switch: Switch) -> None:
        if switch.left is Mode.CALL:
            if self._live is not None:
                self._leave_live(self._live, switch)
            else:
                self._leave_call(switch)
            return
        if switch.left is not switch.entered:
            self._writer.close()
        if switch.entered is Mode.CALL:
            self._live = self._begin_live()

    def _begin_live(self) -> "_Live | None":
        held = self._held
        if held is None or held.new_reading is None or not held.constraint.holds:
            return None
        roomy = self._tokens_left is None or self._tokens_left >= ROOM_TO_STREAM_TOKENS
        return _Live(held.new_reading(), in_pieces=roomy)

    def _leave_live(self, live: "_Live", switch: Switch) -> None:
        if not live.reading.may_end:
            # The marker is part of a value.
            self._give_out(live, live.reading.feed(switch.marker))
            self._scanner.stay(Mode.CALL)
            return
        self._give_out(live, live.reading.finish())
        self._live = None

    def _end_live(self, live: "_Live", *, cut: bool) -> None:
        """Ends a held call whose end marker did not come."""
        self._live = None
        if not cut:
            self._give_out(live, live.reading.finish())
            return
        self._ended_in_tool_call = not (live.any_ended and live.reading.between_calls)
        if live.in_pieces and live.name is not None:
            self._writer.abandon()

    def _give_out(self, live: "_Live", parts: Iterable[Part]) -> None:
        for part in parts:
            match part:
                case Begin(name):
                    live.name = name
                    if live.in_pieces:
                        self._writer.begin_tool_use(self._new_id(), name)
                case Piece(piece):
                    if live.in_pieces:
                        self._writer.input_json(piece)
                    else:
                        live.pieces.append(piece)
                case End():
                    self._end_held_call(live)

    def _end_held_call(self, live: "_Live") -> None:
        assert live.name is not None
        if live.in_pieces:
            self._writer.close()
        else:
            self._writer.tool_use(self._new_id(), live.name, "".join(live.pieces))
        live.name, live.any_ended = None, True
        live.pieces.clear()
        self._has_tool_use = True

    def _leave_call(self, switch: Switch) -> None:
        if self._call.may_go_on and self._is_open():
            self._call.go_on(switch.marker)
            self._scanner.stay(Mode.CALL)
            return
        if not self._end_call():
            self._read_again(switch.marker)

    def _end_open_call(self, *, cut: bool) -> None:
        """Ends a call whose end marker did not come."""
        if self._live is not None:
            self._end_live(self._live, cut=cut)
        elif cut:
            self._ended_in_tool_call = True
            self._call = _Gathered()
        elif not self._end_call():
            self._read_again("")
            self._feed("")
            return
        self._scanner.discard()

    def _end_call(self) -> bool:
        """Gives out the call; False when it must be read again from its first end marker on."""
        results = self._calls_in(self._call.text)
        if self._call.went_on and (self._is_open() or not all(map(_is_call, results))):
            return False
        self._emit(results)
        self._call = _Gathered(may_go_on=self._call.may_go_on)
        return True

    def _read_again(self, marker: str) -> None:
        """Ends the call at its first end marker after all; what follows is text again."""
        call, rest = self._call.divided()
        self._call = _Gathered(may_go_on=False)
        self._emit(self._calls_in(call))
        text = rest + marker
        self._scanner.back_up(text.replace(self._call_end, "") if self._call_end else text)

    def _is_open(self) -> bool:
        return self._reader is not None and self._reader.is_open(self._call.text)

    def _calls_in(self, text: str) -> Sequence[Call | Unreadable]:
        return self._reader.read(text) if self._reader is not None else []

    def _emit(self, results: Sequence[Call | Unreadable]) -> None:
        for result in results:
            if isinstance(result, Unreadable):
                self._tell(result)
            elif self._has_tool_use and not self._parallel:
                self._tell(Unreadable(result.name, _NOT_PARALLEL))
            else:
                self._writer.tool_use(self._new_id(), result.name, result.input_json)
                self._has_tool_use = True

    def _tell(self, call: Unreadable) -> None:
        """Says in the answer that a call was lost, so that neither model nor user misses it."""
        # A name that was not offered is the model's text, and text is never logged.
        _log.warning("tool_call_not_made", tool=self._offered(call.name), reason=call.reason)
        self._is_verbatim = False
        whom = f"`{call.name}`" if call.name else "a tool"
        self._writer.close()
        self._writer.text(f"[The model's call to {whom} {call.reason}.]")
        self._writer.close()

    def _offered(self, name: str | None) -> str | None:
        return name if name in self._names else None


@dataclass
class _Live:
    """A call that a grammar holds."""

    reading: CallReading
    # Whether its input leaves as it comes.
    in_pieces: bool
    # Of the call whose arguments are being written.
    name: str | None = None
    pieces: list[str] = field(default_factory=list)
    any_ended: bool = False


@dataclass
class _Gathered:
    """The text of the call being written."""

    # An end marker inside a value does not end the call.
    may_go_on: bool = True
    _parts: list[str] = field(default_factory=list)
    _length: int = 0
    # Where the first end marker that did not end the call stands, and behind it.
    _first_end: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def went_on(self) -> bool:
        return self._first_end is not None

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def go_on(self, marker: str) -> None:
        if self._first_end is None:
            self._first_end = (self._length, self._length + len(marker))
        self.add(marker)

    def divided(self) -> tuple[str, str]:
        """What stands before and behind the first end marker."""
        assert self._first_end is not None
        end, behind = self._first_end
        return self.text[:end], self.text[behind:]


def _only_token(token_ids: Sequence[int] | None) -> int | None:
    return int(token_ids[0]) if token_ids is not None and len(token_ids) == 1 else None


def _is_call(result: Call | Unreadable) -> bool:
    return isinstance(result, Call)


def _callable_tools(
    tools: Sequence[Tool], tool_choice: ToolChoice, tokenizer: TokenizerWrapper
) -> list[Tool]:
    if tool_choice.type == "none" or not tokenizer.has_tool_calling:
        return []
    return [tool for tool in tools if tool.is_client_tool]
