"""Writes block events of the worker contract.

Invariants: indexes count from 0, one block is open at a time, every block opened is closed, none is
empty, and none holds nothing but whitespace.
"""

import secrets
from enum import Enum

from anyclaude.worker.v1.worker_pb2 import (
    BlockDelta,
    BlockStart,
    BlockStop,
    GenerateResponse,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)

# Long inputs travel in pieces, so that no single event holds up the stream.
_JSON_PIECE_CHARACTERS = 4096


class _Kind(Enum):
    TEXT = "text"
    THINKING = "thinking"
    TOOL_USE = "tool_use"


class BlockWriter:
    """Collects the events of one answer; `take` hands over those not yet taken."""

    def __init__(self) -> None:
        self._events: list[GenerateResponse] = []
        self._index = 0
        self._open: _Kind | None = None
        # Whitespace that becomes part of a block only if something else follows.
        self._leading = ""

    def take(self) -> list[GenerateResponse]:
        events, self._events = self._events, []
        return events

    def text(self, text: str) -> None:
        if text := self._begin(_Kind.TEXT, text):
            self._delta(BlockDelta(index=self._index, text=text))

    def thinking(self, text: str) -> None:
        if text := self._begin(_Kind.THINKING, text):
            self._delta(BlockDelta(index=self._index, thinking=text))

    def tool_use(self, block_id: str, name: str, input_json: str) -> None:
        """A whole tool call. `input_json` is one JSON object."""
        self.close()
        self._start(BlockStart(index=self._index, tool_use=ToolUseBlock(id=block_id, name=name)))
        for at in range(0, len(input_json), _JSON_PIECE_CHARACTERS):
            piece = input_json[at : at + _JSON_PIECE_CHARACTERS]
            self._delta(BlockDelta(index=self._index, partial_json=piece))
        self._stop()

    def begin_tool_use(self, block_id: str, name: str) -> None:
        """A tool call whose input comes in pieces."""
        self.close()
        self._start(BlockStart(index=self._index, tool_use=ToolUseBlock(id=block_id, name=name)))
        self._open = _Kind.TOOL_USE

    def input_json(self, piece: str) -> None:
        """A piece of the open call's input; all of them are one JSON object."""
        assert self._open is _Kind.TOOL_USE
        self._delta(BlockDelta(index=self._index, partial_json=piece))

    def abandon(self) -> None:
        """Leaves the open block without an end, as the last of the answer."""
        self._open = None

    def close(self) -> None:
        """Ends the open block, if one is."""
        self._leading = ""
        if self._open is _Kind.THINKING:
            self._delta(BlockDelta(index=self._index, signature=_signature()))
        if self._open is not None:
            self._stop()

    def _begin(self, kind: _Kind, text: str) -> str:
        """Makes `kind` the open block once there is something to put in it."""
        if self._open is kind:
            return text
        if self._open is not None:
            self.close()
        self._leading += text
        if not self._leading.strip():
            return ""
        text, self._leading = self._leading, ""
        self._open = kind
        if kind is _Kind.TEXT:
            self._start(BlockStart(index=self._index, text=TextBlock()))
        else:
            self._start(BlockStart(index=self._index, thinking=ThinkingBlock()))
        return text

    def _start(self, start: BlockStart) -> None:
        self._events.append(GenerateResponse(block_start=start))

    def _delta(self, delta: BlockDelta) -> None:
        self._events.append(GenerateResponse(block_delta=delta))

    def _stop(self) -> None:
        self._events.append(GenerateResponse(block_stop=BlockStop(index=self._index)))
        self._index += 1
        self._open = None


def _signature() -> str:
    """An opaque marker: clients send it back, and nothing here ever checks it."""
    return f"anyclaude-{secrets.token_hex(16)}"
