"""Writes the block events of one answer, in the worker contract's terms.

Invariants: indexes count from 0, one block is open at a time, and no block is empty or holds
nothing but whitespace, which the Messages API refuses when a client sends the block back. Only a
thinking block that carries state in its signature may be without text, as the API itself sends it.
"""

import secrets
from enum import Enum
from typing import Final

from anyclaude.worker.v1.worker_pb2 import (
    BlockDelta,
    BlockStart,
    BlockStop,
    GenerateResponse,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)

# Long inputs travel in pieces, so that no single event delays the stream.
_JSON_PIECE_CHARACTERS: Final = 4096


class _Kind(Enum):
    TEXT = "text"
    THINKING = "thinking"
    TOOL_USE = "tool_use"


class BlockWriter:
    """Opens and closes blocks as content comes; `drain` returns the events written since."""

    def __init__(self) -> None:
        self._events: list[GenerateResponse] = []
        self._index = 0
        self._open: _Kind | None = None
        self._is_signed = False
        # Whitespace that becomes part of a block only if other characters follow.
        self._leading = ""
        self.has_tool_use = False

    @property
    def in_text(self) -> bool:
        return self._open is _Kind.TEXT

    def drain(self) -> list[GenerateResponse]:
        """Returns the events written since the last call."""
        events, self._events = self._events, []
        return events

    def add(self, event: GenerateResponse) -> None:
        """Adds an event that belongs to no block."""
        self._events.append(event)

    def text(self, piece: str) -> None:
        if piece := self._continue(_Kind.TEXT, piece):
            self._delta(BlockDelta(index=self._index, text=piece))

    def thinking(self, piece: str) -> None:
        if piece := self._continue(_Kind.THINKING, piece):
            self._delta(BlockDelta(index=self._index, thinking=piece))

    def sign(self, signature: str) -> None:
        """Signs the open thinking block; one that nobody signs gets an opaque marker at its end."""
        if self._open is _Kind.THINKING and signature and not self._is_signed:
            self._is_signed = True
            self._delta(BlockDelta(index=self._index, signature=signature))

    def carry(self, signature: str) -> None:
        """Gives the client a signature to send back, in the open thinking block or an own one."""
        if self._open is not _Kind.THINKING or self._is_signed:
            self.close()
            thinking = ThinkingBlock()
            self._start(_Kind.THINKING, BlockStart(index=self._index, thinking=thinking))
        self.sign(signature)
        self.close()

    def tool_use(self, call_id: str, name: str, input_json: str) -> None:
        """Writes a whole tool call; `input_json` is one JSON object."""
        self.begin_tool_use(call_id, name)
        self.input_json(input_json)
        self.close()

    def begin_tool_use(self, call_id: str, name: str) -> None:
        """Opens a tool call whose input comes in pieces."""
        self.close()
        tool = ToolUseBlock(id=call_id, name=name)
        self._start(_Kind.TOOL_USE, BlockStart(index=self._index, tool_use=tool))
        self.has_tool_use = True

    def input_json(self, piece: str) -> None:
        """Writes a piece of the open call's input; all pieces together are one JSON object."""
        assert self._open is _Kind.TOOL_USE
        for at in range(0, len(piece), _JSON_PIECE_CHARACTERS):
            part = piece[at : at + _JSON_PIECE_CHARACTERS]
            self._delta(BlockDelta(index=self._index, partial_json=part))

    def abandon(self) -> None:
        """Leaves the open block without an end: the answer was cut inside it."""
        self._open = None

    def close(self) -> None:
        """Ends the open block, if there is one."""
        self._leading = ""
        if self._open is None:
            return
        # Clients send signatures back; nothing checks this one.
        self.sign(f"anyclaude-{secrets.token_hex(16)}")
        self._events.append(GenerateResponse(block_stop=BlockStop(index=self._index)))
        self._index += 1
        self._open = None

    def _continue(self, kind: _Kind, piece: str) -> str:
        """Opens a block of `kind` when there is content for one; returns what to write to it."""
        if self._open is kind or not piece:
            return piece
        if self._open is not None:
            self.close()
        self._leading += piece
        if not self._leading.strip():
            return ""
        piece, self._leading = self._leading, ""
        if kind is _Kind.TEXT:
            self._start(kind, BlockStart(index=self._index, text=TextBlock()))
        else:
            self._start(kind, BlockStart(index=self._index, thinking=ThinkingBlock()))
        return piece

    def _start(self, kind: _Kind, start: BlockStart) -> None:
        self._open, self._is_signed = kind, False
        self._events.append(GenerateResponse(block_start=start))

    def _delta(self, delta: BlockDelta) -> None:
        self._events.append(GenerateResponse(block_delta=delta))
