"""The stream grammar: worker events in, Messages API events out.

    message_start (content_block_start content_block_delta+ content_block_stop)* message_delta
    message_stop, or an `error` event in place of anything after message_start

A tool_use block that `max_tokens` cut has no content_block_stop: clients run a call when its block
stops, and half a call must not run. In a whole message it has the part of its input that arrived.

Invariants:
- `EventMachine` emits nothing but that grammar: an event that does not fit raises `GrammarError`.
  Claude Code stops reading at the first misplaced event, and runs a tool with whatever input it
  has, so a broken response must end as an error and never look like a message.
- Block indices count from 0 without gaps, blocks never interleave, tool ids are unique, the input
  of a finished tool_use block is one JSON object.
- A text or thinking block without content is not announced: other servers refuse a request that
  sends an empty text block back.
"""

import json
import secrets
from enum import Enum, auto
from typing import Any, Final

from anyclaude.messages.context_edits import edits_json
from anyclaude.messages.diagnostics import diagnostics_json
from anyclaude.messages.enum_words import enum_word
from anyclaude.messages.hidden_thinking import hidden
from anyclaude.worker.v1 import worker_pb2 as worker

Event = dict[str, Any]

PING: Final[Event] = {"type": "ping"}

# The stop reasons of messages that were cut.
_CUTS: Final = {
    worker.STOP_REASON_MAX_TOKENS,
    worker.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED,
}
# The kinds of deltas that each kind of block accepts.
_DELTAS: Final = {
    "text": {"text"},
    "thinking": {"thinking", "signature"},
    "tool_use": {"partial_json"},
}


# How many pieces of hidden thinking come between two signs of life; a piece is a token or more.
_PIECES_PER_SIGN: Final = 100


class GrammarError(Exception):
    """The worker sent an event that the grammar does not allow there."""


class _State(Enum):
    NEW = auto()
    BETWEEN_BLOCKS = auto()
    IN_BLOCK = auto()
    ENDED = auto()


def new_message_id() -> str:
    """Clients merge messages that share an id into one turn, so ids are random."""
    return "msg_" + secrets.token_hex(16)


class EventMachine:
    """Turns the worker events of one request into the events of one message."""

    def __init__(
        self,
        message_id: str,
        model: str,
        *,
        hides_thinking: bool = False,
        tells_edits: bool = False,
    ) -> None:
        """
        Args:
            message_id: the id of the message.
            model: the name that the client gave the model.
            hides_thinking: blocks of thinking carry it in their signature alone.
            tells_edits: the message ends with the context edits that were applied, if any.
        """
        self._message_id = message_id
        self._model = model
        self._hides_thinking = hides_thinking
        self._tells_edits = tells_edits
        self._state = _State.NEW
        self._blocks_begun = 0
        self._blocks_announced = 0
        self._block: _Block | None = None
        self._tool_ids: set[str] = set()

    @property
    def started(self) -> bool:
        return self._state is not _State.NEW

    @property
    def ended(self) -> bool:
        return self._state is _State.ENDED

    def feed(self, event: worker.GenerateResponse) -> list[Event]:
        """The events to send for one worker event other than Failed, in order.

        Raises:
            GrammarError: the event does not fit; the caller ends the stream with an error.
        """
        if self.ended:
            raise GrammarError("an event after the end")
        match event.WhichOneof("event"):
            case "started":
                return self._start(event.started)
            case "progress":
                return []
            case "block_start":
                return self._begin_block(event.block_start)
            case "block_delta":
                return self._extend_block(event.block_delta)
            case "block_stop":
                return self._end_block(event.block_stop)
            case "finished":
                return self._finish(event.finished)
            case other:
                raise GrammarError(f"no place for the event {other}")

    def _expect(self, state: _State, name: str) -> None:
        if self._state is not state:
            raise GrammarError(f"{name} while {self._state.name}")

    def _start(self, started: worker.Started) -> list[Event]:
        self._expect(_State.NEW, "Started")
        self._state = _State.BETWEEN_BLOCKS
        message: Event = {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_json(started.usage),
        }
        if started.HasField("diagnostics"):
            message["diagnostics"] = diagnostics_json(started.diagnostics)
        return [{"type": "message_start", "message": message}]

    def _begin_block(self, start: worker.BlockStart) -> list[Event]:
        self._expect(_State.BETWEEN_BLOCKS, "BlockStart")
        if start.index != self._blocks_begun:
            raise GrammarError(f"block {start.index} where {self._blocks_begun} is next")
        block = _Block.of(start)
        if block.kind == "tool_use":
            self._check_tool(start.tool_use)
            self._tool_ids.add(start.tool_use.id)
        self._state = _State.IN_BLOCK
        self._blocks_begun += 1
        self._block = block
        # A tool call has content even without arguments.
        return self._announce(block) if block.kind == "tool_use" else []

    def _check_tool(self, tool: worker.ToolUseBlock) -> None:
        if not tool.id or not tool.name:
            raise GrammarError("a tool_use block without id or name")
        if tool.id in self._tool_ids:
            raise GrammarError("two tool_use blocks with one id")

    def _announce(self, block: "_Block") -> list[Event]:
        if block.index is not None:
            return []
        block.index = self._blocks_announced
        self._blocks_announced += 1
        return [
            {
                "type": "content_block_start",
                "index": block.index,
                "content_block": dict(block.first),
            }
        ]

    def _current(self, index: int, name: str) -> "_Block":
        self._expect(_State.IN_BLOCK, name)
        if self._block is None or index != self._blocks_begun - 1:
            raise GrammarError(f"{name} for block {index} while {self._blocks_begun - 1} is open")
        return self._block

    def _extend_block(self, delta: worker.BlockDelta) -> list[Event]:
        block = self._current(delta.index, "BlockDelta")
        kind = delta.WhichOneof("delta")
        if kind not in _DELTAS[block.kind]:
            raise GrammarError(f"a {kind} delta in a {block.kind} block")
        text: str = getattr(delta, kind)
        if not text:
            return []
        block.accept(kind, text)
        if self._hides_thinking and block.kind == "thinking":
            return self._hide(block, kind, text)
        return [*self._announce(block), self._delta(block, kind, text)]

    def _hide(self, block: "_Block", kind: str, text: str) -> list[Event]:
        """The events for a piece of hidden thinking: mostly none, so that pings are sent."""
        if kind == "thinking":
            block.hidden.append(text)
            return self._announce(block) or self._sign_of_life(block)
        thinking = "".join(block.hidden)
        signature = hidden(thinking, text) if thinking else text
        return [*self._announce(block), self._delta(block, "signature", signature)]

    def _sign_of_life(self, block: "_Block") -> list[Event]:
        """An empty delta now and then: clients give a stream up that sends pings alone."""
        if len(block.hidden) % _PIECES_PER_SIGN:
            return []
        return [self._delta(block, "thinking", "")]

    @staticmethod
    def _delta(block: "_Block", kind: str, text: str) -> Event:
        name = "input_json_delta" if kind == "partial_json" else f"{kind}_delta"
        return {
            "type": "content_block_delta",
            "index": block.index,
            "delta": {"type": name, kind: text},
        }

    def _end_block(self, stop: worker.BlockStop) -> list[Event]:
        block = self._current(stop.index, "BlockStop")
        events: list[Event] = []
        if block.kind == "tool_use" and not block.input_json:
            # A call without input has no arguments.
            block.accept("partial_json", "{}")
            events.append(self._delta(block, "partial_json", "{}"))
        block.check_complete()
        if block.index is not None:
            events.append({"type": "content_block_stop", "index": block.index})
        self._block = None
        self._state = _State.BETWEEN_BLOCKS
        return events

    def _finish(self, finished: worker.Finished) -> list[Event]:
        if not self._is_cut_call(finished):
            self._expect(_State.BETWEEN_BLOCKS, "Finished")
        reason = self._stop_reason(finished)
        self._state = _State.ENDED
        sequence = finished.stop_sequence if reason == "stop_sequence" else None
        delta: Event = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": usage_json(finished.usage),
        }
        if self._tells_edits:
            delta["context_management"] = {"applied_edits": edits_json(finished.applied_edits)}
        return [delta, {"type": "message_stop"}]

    def _is_cut_call(self, finished: worker.Finished) -> bool:
        is_call = self._block is not None and self._block.kind == "tool_use"
        return is_call and finished.stop_reason in _CUTS

    def _stop_reason(self, finished: worker.Finished) -> str:
        if not finished.stop_reason or finished.stop_reason not in worker.StopReason.values():
            raise GrammarError("Finished without a stop reason")
        reason = enum_word(worker.StopReason.DESCRIPTOR, finished.stop_reason)
        if reason == "stop_sequence" and not finished.stop_sequence:
            raise GrammarError("STOP_SEQUENCE without the sequence")
        if reason in ("end_turn", "tool_use"):
            # Clients run tools by the stop reason, so it follows the blocks that were sent.
            return "tool_use" if self._tool_ids else "end_turn"
        return reason


class _Block:
    """One open block, with its content so far, which is checked when the block ends."""

    def __init__(self, kind: str, first: Event) -> None:
        self.kind = kind
        self.first = first
        # Position among the announced blocks; None until announced.
        self.index: int | None = None
        self.input_json: list[str] = []
        self.hidden: list[str] = []
        self._signed = False

    @classmethod
    def of(cls, start: worker.BlockStart) -> "_Block":
        match start.WhichOneof("block"):
            case "text":
                return cls("text", {"type": "text", "text": ""})
            case "thinking":
                return cls("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            case "tool_use":
                tool = start.tool_use
                first = {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}
                return cls("tool_use", first)
            case other:
                raise GrammarError(f"a block of kind {other}")

    def accept(self, kind: str, text: str) -> None:
        if self._signed:
            raise GrammarError("a delta after the signature")
        if kind == "signature":
            self._signed = True
        elif kind == "partial_json":
            self.input_json.append(text)

    def check_complete(self) -> None:
        if self.kind == "tool_use" and not _is_json_object("".join(self.input_json)):
            raise GrammarError("the input of a tool_use block is not one JSON object")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_refuse_constant), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    # Python's parser accepts NaN and Infinity; JavaScript's, in the client, does not.
    raise ValueError(name)


def usage_json(usage: worker.Usage) -> dict[str, int]:
    """Token counts as the API spells them: the worker's, never estimates.

    The three input counts add up to the prompt; `output_tokens` is cumulative. Clients compute from
    them how full the context window is.
    """
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }
