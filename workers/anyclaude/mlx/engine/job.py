"""One request as the engine sees it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from anyclaude.mlx.adapter import Sampler
from anyclaude.mlx.engine.drafts import Guide
from anyclaude.mlx.kv.lineage import LineageKey, Lookup
from anyclaude.mlx.kv.tree import Node
from anyclaude.mlx.tokens import TokenArray
from anyclaude.worker.v1.worker_pb2 import Diagnostics, GenerateResponse, ReuseCause


class Blocks(Protocol):
    """Turns generated tokens into block events (`decode.BlockStream`)."""

    def push(self, token_id: int) -> list[GenerateResponse]: ...

    @property
    def stop_sequence(self) -> str | None: ...

    @property
    def loop(self) -> str | None: ...

    @property
    def is_in_call(self) -> bool: ...

    def finish(self, *, cut: bool) -> list[GenerateResponse]: ...

    @property
    def has_tool_use(self) -> bool: ...

    @property
    def is_verbatim(self) -> bool: ...


class RequestListener(Protocol):
    """Follows one request on the MLX thread (`kv_explain.RequestExplainer`)."""

    # Known once the request is explained.
    cause: ReuseCause
    # Known once the request has started.
    diagnostics: Diagnostics | None

    def started(self, lookup: Lookup) -> None:
        """The store has lent the request a cache; the first token waits for this call."""

    def explain(self) -> None:
        """Does what took time in `started`; later calls do nothing."""

    def emitted(self, event: GenerateResponse) -> None:
        """A block event of the response was sent."""

    def kept(self, key: LineageKey, tokens: TokenArray, tip: Node) -> None:
        """The request is over; its tokens are in the tree and end at `tip`."""


@dataclass(frozen=True)
class Job:
    """A rendered request, ready to run.

    `emit` is called on the MLX thread and must not block. `sampler` is called once for each token
    that follows `token_ids`.
    """

    request_id: str
    lineage: LineageKey
    token_ids: TokenArray
    # Useful places for checkpoints: the ends of messages.
    marks: tuple[int, ...]
    stable_tokens: int
    max_tokens: int
    # Whether max_tokens was lowered to fit into the context window.
    window_limited: bool
    sampler: Sampler
    new_blocks: Callable[[], Blocks]
    emit: Callable[[GenerateResponse], None]
    # What the grammar of the answer says about its next tokens.
    guide: Guide | None = None
    # Utility calls leave no cache behind.
    keep: bool = True
    # How many of `token_ids`, at its end, are the beginning of the answer: an earlier worker
    # generated them before it died.
    generated_tokens: int = 0
    # Whether it is no request, but computes what the conversation's next prompt will begin with.
    # It runs only while there is nothing else to do, and ends as soon as there is.
    ahead: bool = False
    listener: RequestListener | None = None
    # Called on the MLX thread, before Finished, with the tokens of a response that ended by itself
    # and was sent as the model wrote it.
    answered: Callable[[TokenArray], None] | None = None
    render_seconds: float = 0.0
    created: float = field(default_factory=time.monotonic)

    @property
    def prompt_tokens(self) -> int:
        return len(self.token_ids) - self.generated_tokens
