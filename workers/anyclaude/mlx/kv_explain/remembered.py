"""What is remembered of conversations, longer than their KV is kept.

For each session and agent its latest request: the tokens, what was asked and answered, and what
became of the KV. Bounded in number and bytes, the least recently heard of going first; in memory
only, since it holds words of prompts.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from anyclaude.mlx.kv.causes import Cause
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.tree import Node
from anyclaude.mlx.prompt.summary import AnswerRecorder
from anyclaude.mlx.tokens import TokenArray

_ID_BYTES: Final = 4


@dataclass(frozen=True)
class Asked:
    """A request beside its tokens: what it takes to say how two of them differ."""

    request_id: str
    # The Messages request as it came.
    body: bytes
    # Ends of messages, in tokens of the prompt.
    marks: tuple[int, ...]
    prompt_tokens: int
    # The id that the answer goes out under.
    message_id: str = ""
    wants_diagnostics: bool = False
    previous_message_id: str = ""
    answer: AnswerRecorder = field(default_factory=AnswerRecorder)


@dataclass(frozen=True)
class Fate:
    """How KV left."""

    cause: Cause
    time: float


@dataclass(eq=False)
class Trail:
    """Where some tokens end in the tree, and what happened to those that are no longer there."""

    # The last node that is still in the tree.
    tip: Node | None
    fate: Fate | None = None

    def follow(self, gone: Collection[Node], fate: Fate) -> None:
        """Notes that nodes left the tree."""
        if self.tip is None or self.tip not in gone:
            return
        first = next(node for node in self.tip.path() if node in gone)
        self.fate = fate
        self.tip = None if first.parent is None or first.parent.is_root else first.parent


class Remembered:
    """The latest request of a conversation, with its answer."""

    def __init__(
        self,
        key: LineageKey,
        trail: Trail,
        tokens: TokenArray | None = None,
        asked: Asked | None = None,
    ) -> None:
        """
        Args:
            tokens: all that lead to the trail's end; without them they are read off the tree, once
                they are needed or about to leave it.
            asked: None when what was said is not known any more.
        """
        self.key = key
        self.trail = trail
        self.asked = asked
        self._tokens = tokens
        said = len(asked.body) + asked.answer.size if asked else 0
        self.nbytes = said + _ID_BYTES * (trail.tip.end if trail.tip else 0)

    @property
    def tokens(self) -> TokenArray:
        if self._tokens is None:
            tip = self.trail.tip
            self._tokens = tip.token_ids() if tip is not None else np.empty(0, np.int32)
        return self._tokens

    def follow(self, gone: Collection[Node], fate: Fate) -> None:
        """Notes that nodes left the tree."""
        if self._tokens is None and self.trail.tip in gone:
            self._tokens = self.tokens
        self.trail.follow(gone, fate)


class Memories:
    """Conversations by session and agent, and stable prefixes by digest."""

    def __init__(
        self,
        max_conversations: int,
        max_bytes: int,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_conversations = max_conversations
        self._max_bytes = max_bytes
        self._clock = clock
        self._conversations: OrderedDict[tuple[str, str], Remembered] = OrderedDict()
        self._prefixes: OrderedDict[str, Trail] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        return self._bytes

    def __iter__(self) -> Iterator[Remembered]:
        return iter(self._conversations.values())

    def get(self, key: LineageKey) -> Remembered | None:
        return self._conversations.get(_name(key))

    def by_message(self, message_id: str) -> Remembered | None:
        """The conversation whose latest answer went out under this id."""
        found = (r for r in self if r.asked and r.asked.message_id == message_id)
        return next(found, None)

    def put(self, remembered: Remembered) -> None:
        name = _name(remembered.key)
        if name in self._conversations:
            self._bytes -= self._conversations.pop(name).nbytes
        self._conversations[name] = remembered
        self._bytes += remembered.nbytes
        while len(self._conversations) > self._max_conversations or self._bytes > self._max_bytes:
            self._bytes -= self._conversations.popitem(last=False)[1].nbytes

    def prefix(self, stable_digest: str) -> Trail | None:
        return self._prefixes.get(stable_digest)

    def put_prefix(self, node: Node) -> None:
        self._prefixes[node.stable_digest] = Trail(node)
        self._prefixes.move_to_end(node.stable_digest)
        if len(self._prefixes) > self._max_conversations:
            self._prefixes.popitem(last=False)

    def left(self, gone: Collection[Node], cause: Cause) -> None:
        """Notes why nodes left the tree."""
        fate = Fate(cause, self._clock())
        for remembered in self:
            remembered.follow(gone, fate)
        for trail in self._prefixes.values():
            trail.follow(gone, fate)


def _name(key: LineageKey) -> tuple[str, str]:
    return key.session_id, key.agent_id
