"""What is remembered of conversations after their KV is gone.

`Memories`: for each session and agent its latest request (tokens, body, answer, and what became of
the KV), in memory only, since bodies hold the text of prompts. `Notes`: the few facts that outlive
the worker, without any text of prompts.
"""

import json
import time
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.protocols import Loss
from anyclaude.mlx.kv.tree import Node
from anyclaude.mlx.lru import LRUCache
from anyclaude.mlx.prompt.summary import AnswerRecorder, PrefixSummary
from anyclaude.mlx.tokens import TokenArray

log = structlog.get_logger(__name__)

_ID_BYTES: Final = 4
_MAX_SESSIONS: Final = 512
_MAX_PREFIXES: Final = 128


@dataclass(frozen=True)
class RequestFacts:
    """A request besides its tokens: what is needed to explain how two requests differ."""

    request_id: str
    # The Messages request as the client sent it.
    body: bytes
    # Ends of messages, in tokens of the prompt.
    marks: tuple[int, ...]
    prompt_tokens: int
    # The id of the response's message.
    message_id: str = ""
    wants_diagnostics: bool = False
    previous_message_id: str = ""
    answer: AnswerRecorder = field(default_factory=AnswerRecorder)


@dataclass(frozen=True)
class Fate:
    """How KV left."""

    loss: Loss
    time: float


@dataclass(eq=False)
class Trail:
    """Where some tokens end in the tree, and what happened to those that left it."""

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
        request: RequestFacts | None = None,
    ) -> None:
        """
        Args:
            tokens: all tokens up to the trail's end; if None, they are read from the tree when they
                are needed or about to leave it.
            request: None for a conversation of an earlier process.
        """
        self.key = key
        self.trail = trail
        self.request = request
        self._tokens = tokens
        text = len(request.body) + request.answer.size if request else 0
        self.nbytes = text + _ID_BYTES * (trail.tip.end if trail.tip else 0)

    @property
    def tokens(self) -> TokenArray:
        if self._tokens is None:
            tip = self.trail.tip
            self._tokens = tip.token_ids() if tip is not None else np.empty(0, np.int32)
        return self._tokens

    def snapshot(self) -> "Remembered":
        """A copy that stays as it is now."""
        same = copy(self)
        same.trail = copy(self.trail)
        return same

    def follow(self, gone: Collection[Node], fate: Fate) -> None:
        """Notes that nodes left the tree."""
        if self._tokens is None and self.trail.tip in gone:
            self._tokens = self.tokens
        self.trail.follow(gone, fate)


class Memories:
    """Conversations by session and agent, and stable prefixes by digest."""

    def __init__(
        self, max_conversations: int, max_bytes: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._conversations = LRUCache[tuple[str, str], Remembered](
            max_bytes, lambda _, remembered: remembered.nbytes, max_entries=max_conversations
        )
        self._prefixes = LRUCache[str, Trail](max_conversations)

    @property
    def nbytes(self) -> int:
        return self._conversations.size

    def get(self, key: LineageKey) -> Remembered | None:
        return self._conversations.get((key.session_id, key.agent_id))

    def by_message(self, message_id: str) -> Remembered | None:
        """The conversation whose latest response had this message id."""
        for _, remembered in self._conversations.items():
            if remembered.request and remembered.request.message_id == message_id:
                return remembered
        return None

    def put(self, remembered: Remembered) -> None:
        key = remembered.key
        self._conversations.put((key.session_id, key.agent_id), remembered)

    def prefix(self, stable_digest: str) -> Trail | None:
        return self._prefixes.get(stable_digest)

    def put_prefix(self, node: Node) -> None:
        self._prefixes.put(node.stable_digest, Trail(node))

    def lost(self, gone: Collection[Node], loss: Loss) -> None:
        """Records why nodes left the tree."""
        fate = Fate(loss, self._clock())
        for _, remembered in self._conversations.items():
            remembered.follow(gone, fate)
        for _, trail in self._prefixes.items():
            trail.follow(gone, fate)


class Notes:
    """Digests of tools and instructions by stable prefix, and which model last answered a session.

    Kept in a folder, so that a change across a restart can still be explained. Losing a note costs
    an explanation and nothing else, so failures are only logged.
    """

    def __init__(self, folder: Path | None = None, model: str = "") -> None:
        """Keeps the notes in memory only if `folder` is None.

        `model` names the model and its settings; its caches are valid for no other.
        """
        self._folder = folder
        self._model = model
        self._models = LRUCache[str, str](_MAX_SESSIONS)
        self._prefixes = LRUCache[str, PrefixSummary](_MAX_PREFIXES)
        if folder is not None:
            self._load(folder)

    def prefix(self, stable_digest: str) -> PrefixSummary | None:
        return self._prefixes.get(stable_digest)

    def put_prefix(self, stable_digest: str, facts: PrefixSummary) -> None:
        dropped = self._prefixes.put(stable_digest, facts)
        self._write(self._name(stable_digest), facts.to_json())
        for digest in dropped:
            self._remove(self._name(digest))

    def was_with_another_model(self, session_id: str) -> bool:
        return (self._models.get(session_id) or self._model) != self._model

    def put_session(self, session_id: str) -> None:
        if self._models.get(session_id) != self._model:
            self._models.put(session_id, self._model)
            self._write("sessions.json", json.dumps(dict(self._models.items())))

    def _name(self, stable_digest: str) -> str:
        """The file of a prefix: digests are of tokens, which differ from model to model."""
        return f"{self._model}-{stable_digest}.prefix"

    def _load(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sessions = folder / "sessions.json"
            if sessions.is_file():
                for session_id, model in json.loads(sessions.read_text()).items():
                    self._models.put(session_id, model)
            for file in sorted(
                folder.glob(f"{self._model}-*.prefix"), key=lambda file: file.stat().st_mtime
            ):
                digest = file.stem.removeprefix(f"{self._model}-")
                self._prefixes.put(digest, PrefixSummary.from_json(file.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("cache notes cannot be read", folder=str(folder), why=str(error))

    def _write(self, name: str, text: str) -> None:
        if self._folder is None:
            return
        try:
            draft = self._folder / f".{name}.draft"
            draft.write_text(text)
            draft.replace(self._folder / name)
        except OSError as error:
            log.warning("cache notes cannot be written", file=name, why=str(error))

    def _remove(self, name: str) -> None:
        if self._folder is None:
            return
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("cache notes cannot be removed", file=name, why=str(error))
