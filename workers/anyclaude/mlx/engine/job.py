"""One request as the engine sees it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from anyclaude.mlx.adapter import Sampler
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv_explain.remembered import Asked
from anyclaude.mlx.tokens import TokenArray
from anyclaude.worker.v1.worker_pb2 import GenerateResponse


class Blocks(Protocol):
    """Turns generated tokens into block events (`decode.BlockStream`)."""

    def push(self, token_id: int) -> list[GenerateResponse]: ...

    @property
    def stop_sequence(self) -> str | None: ...

    def finish(self, *, cut: bool) -> list[GenerateResponse]: ...

    @property
    def has_tool_use(self) -> bool: ...

    @property
    def is_verbatim(self) -> bool: ...


@dataclass(frozen=True)
class Job:
    """A rendered request, ready to run.

    `emit` is called on the MLX thread and must not block.
    """

    request_id: str
    lineage: LineageKey
    token_ids: TokenArray
    # Where checkpoints are worth having: ends of messages.
    marks: tuple[int, ...]
    stable_tokens: int
    max_tokens: int
    # Whether max_tokens was lowered to what the window leaves.
    window_limited: bool
    sampler: Sampler
    new_blocks: Callable[[], Blocks]
    emit: Callable[[GenerateResponse], None]
    # Utility calls leave no cache behind.
    keep: bool = True
    # For explaining what was reused.
    asked: Asked | None = None
    # Told the tokens of an answer that ended by itself and left as the model wrote it, on the MLX
    # thread, before its Finished.
    answered: Callable[[TokenArray], None] | None = None
    render_seconds: float = 0.0
    created: float = field(default_factory=time.monotonic)
