"""Worker events of one answer: blocks counted from 0, one open at a time."""

import secrets

from anyclaude.worker.v1.worker_pb2 import (
    BlockDelta,
    BlockStart,
    BlockStop,
    GenerateResponse,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)


class BlockWriter:
    """Opens and closes blocks as their content comes, and holds the events until they are taken."""

    def __init__(self) -> None:
        self._events: list[GenerateResponse] = []
        self._index = 0
        # "text", "thinking" or "tool_use"; empty between blocks.
        self._open = ""
        self._signed = False
        self.used_tools = False

    @property
    def in_text(self) -> bool:
        return self._open == "text"

    def take(self) -> list[GenerateResponse]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def say(self, event: GenerateResponse) -> None:
        """An event between blocks."""
        self._events.append(event)

    def text(self, piece: str) -> None:
        if not piece:
            return
        if self._open != "text":
            self.close()
            self._start("text", BlockStart(index=self._index, text=TextBlock()))
        self._extend(BlockDelta(index=self._index, text=piece))

    def thinking(self, piece: str) -> None:
        if not piece:
            return
        if self._open != "thinking":
            self.close()
            self._start("thinking", BlockStart(index=self._index, thinking=ThinkingBlock()))
        self._extend(BlockDelta(index=self._index, thinking=piece))

    def sign(self, signature: str) -> None:
        """The open thinking block's own signature; without one it gets a marker of ours."""
        if self._open == "thinking" and signature and not self._signed:
            self._signed = True
            self._extend(BlockDelta(index=self._index, signature=signature))

    def tool(self, call_id: str, name: str) -> None:
        self.close()
        block = ToolUseBlock(id=call_id, name=name)
        self._start("tool_use", BlockStart(index=self._index, tool_use=block))
        self.used_tools = True

    def arguments(self, piece: str) -> None:
        """More of the open tool call's JSON text."""
        if piece:
            self._extend(BlockDelta(index=self._index, partial_json=piece))

    def close(self) -> None:
        if not self._open:
            return
        if not self._signed:
            self.sign(f"anyclaude-{secrets.token_hex(16)}")
        self._events.append(GenerateResponse(block_stop=BlockStop(index=self._index)))
        self._index += 1
        self._open = ""

    def _start(self, kind: str, start: BlockStart) -> None:
        self._open, self._signed = kind, False
        self._events.append(GenerateResponse(block_start=start))

    def _extend(self, delta: BlockDelta) -> None:
        self._events.append(GenerateResponse(block_delta=delta))
