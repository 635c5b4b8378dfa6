"""Worker events of one answer: blocks counted from 0, one open at a time."""

import secrets
from collections.abc import Iterator

from anyclaude.worker.v1.worker_pb2 import (
    BlockDelta,
    BlockStart,
    BlockStop,
    GenerateResponse,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)

Events = Iterator[GenerateResponse]


class BlockWriter:
    """Opens and closes blocks as their content comes."""

    def __init__(self) -> None:
        self._index = 0
        # "text", "thinking" or "tool_use"; empty between blocks.
        self._open = ""
        self._signed = False
        self.used_tools = False

    @property
    def in_text(self) -> bool:
        return self._open == "text"

    def text(self, piece: str) -> Events:
        if not piece:
            return
        if self._open != "text":
            yield from self.close()
            yield from self._start("text", BlockStart(index=self._index, text=TextBlock()))
        yield _delta(BlockDelta(index=self._index, text=piece))

    def thinking(self, piece: str) -> Events:
        if not piece:
            return
        if self._open != "thinking":
            yield from self.close()
            start = BlockStart(index=self._index, thinking=ThinkingBlock())
            yield from self._start("thinking", start)
        yield _delta(BlockDelta(index=self._index, thinking=piece))

    def sign(self, signature: str) -> Events:
        """The open thinking block's own signature; without one it gets a marker of ours."""
        if self._open == "thinking" and signature and not self._signed:
            self._signed = True
            yield _delta(BlockDelta(index=self._index, signature=signature))

    def tool(self, call_id: str, name: str) -> Events:
        yield from self.close()
        block = ToolUseBlock(id=call_id, name=name)
        yield from self._start("tool_use", BlockStart(index=self._index, tool_use=block))
        self.used_tools = True

    def arguments(self, piece: str) -> Events:
        """More of the open tool call's JSON text."""
        if piece:
            yield _delta(BlockDelta(index=self._index, partial_json=piece))

    def close(self) -> Events:
        if not self._open:
            return
        if not self._signed:
            yield from self.sign(f"anyclaude-{secrets.token_hex(16)}")
        yield GenerateResponse(block_stop=BlockStop(index=self._index))
        self._index += 1
        self._open = ""

    def _start(self, kind: str, start: BlockStart) -> Events:
        self._open, self._signed = kind, False
        yield GenerateResponse(block_start=start)


def _delta(delta: BlockDelta) -> GenerateResponse:
    return GenerateResponse(block_delta=delta)
