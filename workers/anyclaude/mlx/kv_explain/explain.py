"""Explains each request: what was reused, from where, and why no more.

Every cause is derived from stored facts: the tokens of a conversation's latest request, both
requests as they arrived, and what happened to the KV. If these do not explain it, the cause is
UNKNOWN, which is counted. Explanations contain text of prompts: a bounded number of them is kept,
in memory only.

Explaining takes milliseconds where a prompt diverges, so it happens after the first token. What may
change until then is noted at the start (`_Scene`).
Not thread-safe: the MLX thread owns it.
"""

import time
import traceback
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from anyclaude.cache.v1 import cache_pb2
from anyclaude.messages.requests import parse_count_tokens_request
from anyclaude.mlx.kv.lineage import Lineage, LineageKey, Lookup
from anyclaude.mlx.kv.protocols import Loss
from anyclaude.mlx.kv.tree import Node
from anyclaude.mlx.kv_explain.diagnose import (
    Detokenizer,
    Verdict,
    messages_verdict,
    prefix_verdict,
)
from anyclaude.mlx.kv_explain.remembered import Memories, Notes, Remembered, RequestFacts, Trail
from anyclaude.mlx.lru import LRUCache
from anyclaude.mlx.prompt.summary import PrefixSummary
from anyclaude.mlx.tokens import TokenArray, common_prefix
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

_SIDE_CHARACTERS: Final = 80
# Nearly every token has at least one byte of text.
_SIDE_TOKENS: Final = 2 * _SIDE_CHARACTERS
_LOSSES: Final = {
    Loss.EVICTED: pb.REUSE_CAUSE_EVICTED,
    Loss.PRUNED: pb.REUSE_CAUSE_PRUNED,
    Loss.CORRUPT_RECORD: pb.REUSE_CAUSE_CORRUPT_RECORD,
}
_REASONS: Final = {
    pb.REUSE_CAUSE_MODEL_CHANGED: pb.CACHE_MISS_REASON_MODEL_CHANGED,
    pb.REUSE_CAUSE_INSTRUCTIONS_CHANGED: pb.CACHE_MISS_REASON_SYSTEM_CHANGED,
    pb.REUSE_CAUSE_TOOLS_CHANGED: pb.CACHE_MISS_REASON_TOOLS_CHANGED,
    pb.REUSE_CAUSE_EDITED_HISTORY: pb.CACHE_MISS_REASON_MESSAGES_CHANGED,
}


@dataclass(frozen=True)
class ExplainLimits:
    """How much is remembered, and the folder for notes that outlive the worker."""

    max_conversations: int = 256
    memory_bytes: int = 64 * 1024 * 1024
    max_explanations: int = 256
    notes_folder: Path | None = None


@dataclass(frozen=True)
class _Finding:
    """A verdict, and the other prompt as far as it is known."""

    verdict: Verdict
    # The tokens shared with the other prompt, and that prompt's tokens, if there is one.
    offset: int = 0
    other: TokenArray | None = None
    lost_time: float | None = None


@dataclass(frozen=True)
class _Scene:
    """What an explanation needs and what may change after the request got its cache."""

    # The conversation's latest request, if there was one.
    kept: Remembered | None
    # What became of its tools and instructions.
    prefix: Trail | None
    was_with_another_model: bool
    # Whether the prompt goes on where another branch of the tree ends.
    extends_branch: bool
    # Of the segment in whose middle the prompt diverges.
    neighbour_digest: str


class Explainer:
    """Listens to a store (`kv.protocols.Listener`) and explains its requests."""

    def __init__(
        self,
        detokenizer: Detokenizer,
        limits: ExplainLimits = ExplainLimits(),
        *,
        model: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`model` names the model and its settings in notes."""
        self._detokenizer = detokenizer
        self._clock = clock
        self._memories = Memories(limits.max_conversations, limits.memory_bytes, clock=clock)
        self._notes = Notes(limits.notes_folder, model)
        self._explained = LRUCache[str, cache_pb2.Explanation](limits.max_explanations)

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        return self._memories.nbytes

    def get(self, request_id: str) -> cache_pb2.Explanation | None:
        return self._explained.get(request_id)

    def request(self, facts: RequestFacts) -> "RequestExplainer":
        """The listener that follows one request while it runs."""
        return RequestExplainer(self, facts)

    # What the store reports

    def adopted(self, nodes: Collection[Node], lineages: Collection[Lineage]) -> None:
        for node in nodes:
            if node.stable_digest:
                self._memories.put_prefix(node)
        for lineage in sorted(lineages, key=lambda lineage: lineage.last_use):
            self._memories.put(Remembered(lineage.key, Trail(lineage.tip)))

    def lost(self, nodes: Collection[Node], loss: Loss) -> None:
        self._memories.lost(frozenset(nodes), loss)

    # One request

    def remember(
        self, key: LineageKey, tokens: TokenArray, tip: Node, request: RequestFacts
    ) -> None:
        """Remembers a finished request whose tokens are in the tree."""
        self._memories.put(Remembered(key, Trail(tip), tokens.copy(), request))
        self._notes.put_session(key.session_id)
        for node in tip.path():
            if node.stable_digest == key.stable_digest:
                self._memories.put_prefix(node)

    def scene(self, lookup: Lookup) -> _Scene:
        """Notes the facts as they are now. It takes microseconds, so the first token can wait."""
        kept = self._memories.get(lookup.key) or _restored(lookup)
        prefix = self._memories.prefix(lookup.key.stable_digest)
        end = lookup.match.nodes[-1] if lookup.match.nodes else None
        return _Scene(
            kept=kept.snapshot() if kept is not None else None,
            prefix=copy(prefix) if prefix is not None else None,
            was_with_another_model=self._notes.was_with_another_model(lookup.key.session_id),
            extends_branch=end is not None and not end.children and lookup.match.length == end.end,
            neighbour_digest=end.stable_digest if end is not None else "",
        )

    def explain(self, lookup: Lookup, scene: _Scene, request: RequestFacts) -> pb.ReuseCause:
        """Decides why no more of the prompt is reused, and keeps the whole explanation.

        An error here makes the explanation UNKNOWN; it never fails the response.
        """
        try:
            if lookup.keep:
                self._note_prefix(lookup, request)
            finding = self._find(lookup, scene, request)
            self._explained.put(request.request_id, self._explanation(lookup, request, finding))
        except Exception as error:  # noqa: BLE001 - see above
            _report(error, request)
            return pb.REUSE_CAUSE_UNKNOWN
        return finding.verdict.cause

    def _note_prefix(self, lookup: Lookup, request: RequestFacts) -> None:
        digest = lookup.key.stable_digest
        if lookup.stable_tokens and self._notes.prefix(digest) is None:
            facts = PrefixSummary.of(parse_count_tokens_request(request.body))
            self._notes.put_prefix(digest, facts)

    def _find(self, lookup: Lookup, scene: _Scene, request: RequestFacts) -> _Finding:
        if not lookup.keep:
            return _Finding(Verdict(pb.REUSE_CAUSE_NOT_KEPT))
        kept = scene.kept
        if kept is None:
            return self._new_conversation(lookup, scene, request)
        shared = common_prefix(kept.tokens, lookup.prompt)
        goal = min(shared, len(lookup.prompt) - 1)
        ended = shared == min(len(kept.tokens), len(lookup.prompt))
        if lookup.reused < goal and lookup.match.length < goal:
            return self._lost(kept.trail, lookup, kept.tokens)
        if ended:
            cause = pb.REUSE_CAUSE_EXTENDED if lookup.reused >= goal else pb.REUSE_CAUSE_CHECKPOINT
            return _Finding(Verdict(cause))
        if not lookup.ahead_tokens and _rejoins(lookup, scene, shared, request):
            return _Finding(Verdict(pb.REUSE_CAUSE_REJOINED), shared, kept.tokens)
        verdict = self._diverged(kept, lookup, request, shared)
        if lookup.ahead_tokens and verdict.cause != pb.REUSE_CAUSE_EDITED_HISTORY:
            verdict = replace(verdict, cause=pb.REUSE_CAUSE_COMPUTED_AHEAD)
        return _Finding(verdict, shared, kept.tokens)

    def _new_conversation(self, lookup: Lookup, scene: _Scene, request: RequestFacts) -> _Finding:
        trail = scene.prefix
        stable, known = lookup.stable_tokens, lookup.match.length
        if scene.was_with_another_model:
            return _Finding(Verdict(pb.REUSE_CAUSE_MODEL_CHANGED))
        if trail is not None and lookup.reused < stable:
            if known < stable:
                return self._lost(trail, lookup, None)
            return _Finding(Verdict(pb.REUSE_CAUSE_CHECKPOINT))
        if not lookup.reused:
            return _Finding(Verdict(pb.REUSE_CAUSE_FIRST_SIGHT))
        return self._forked(lookup, scene, request)

    def _lost(self, trail: Trail, lookup: Lookup, other: TokenArray | None) -> _Finding:
        """The cause if KV was lost; its trail records what happened to it."""
        at = lookup.reused
        if trail.fate is None:
            return _Finding(Verdict(pb.REUSE_CAUSE_UNKNOWN), at, other)
        return _Finding(Verdict(_LOSSES[trail.fate.loss]), at, other, trail.fate.time)

    def _forked(self, lookup: Lookup, scene: _Scene, request: RequestFacts) -> _Finding:
        """A new conversation beside one that is kept: where they diverge, and why."""
        nodes, length = lookup.match.nodes, lookup.match.length
        neighbour = nodes[-1] if nodes and length < nodes[-1].end else None
        if neighbour is None:
            return _Finding(Verdict(pb.REUSE_CAUSE_NEW_LINEAGE))
        other = neighbour.token_ids()
        digest = scene.neighbour_digest
        verdict = Verdict(pb.REUSE_CAUSE_NEW_LINEAGE)
        if digest:
            new = self._notes.prefix(lookup.key.stable_digest)
            kept = self._notes.prefix(digest)
            if new is not None and kept is not None:
                why = prefix_verdict(kept, new, lookup, request, self._detokenizer)
                verdict = Verdict(pb.REUSE_CAUSE_NEW_LINEAGE, None, why.tools, why.instructions)
        return _Finding(verdict, length, other)

    def _diverged(
        self, kept: Remembered, lookup: Lookup, request: RequestFacts, shared: int
    ) -> Verdict:
        if kept.key.stable_digest != lookup.key.stable_digest:
            facts = PrefixSummary.of(parse_count_tokens_request(request.body))
            known = self._notes.prefix(kept.key.stable_digest)
            return prefix_verdict(known, facts, lookup, request, self._detokenizer)
        return messages_verdict(kept, lookup, request, shared, self._detokenizer)

    def _explanation(
        self, lookup: Lookup, request: RequestFacts, finding: _Finding
    ) -> cache_pb2.Explanation:
        verdict, reused = finding.verdict, lookup.reused
        live = reused if lookup.from_live else 0
        disk = 0 if live else min(lookup.disk_tokens, reused)
        explanation = cache_pb2.Explanation(
            request_id=request.request_id,
            session_id=lookup.key.session_id,
            agent_id=lookup.key.agent_id,
            cause=verdict.cause,
            prompt_tokens=len(lookup.prompt),
            reused_live_tokens=live,
            reused_memory_tokens=reused - live - disk,
            reused_disk_tokens=disk,
            computed_tokens=len(lookup.prompt) - reused,
            reused_ahead_tokens=lookup.ahead_tokens,
            tools=verdict.tools,
            instructions=verdict.instructions,
        )
        explanation.time.FromNanoseconds(int(self._clock() * 1e9))
        if finding.lost_time is not None:
            explanation.lost_time.FromNanoseconds(int(finding.lost_time * 1e9))
        if finding.other is not None:
            divergence = self._divergence(lookup.prompt, finding, finding.other)
            explanation.divergence.CopyFrom(divergence)
        return explanation

    def _divergence(
        self, prompt: TokenArray, finding: _Finding, other: TokenArray
    ) -> cache_pb2.Divergence:
        at = finding.offset
        divergence = cache_pb2.Divergence(
            offset=at,
            before=self._text(prompt[max(0, at - _SIDE_TOKENS) : at])[-_SIDE_CHARACTERS:],
            kept=self._text(other[at : at + _SIDE_TOKENS])[:_SIDE_CHARACTERS],
            came=self._text(prompt[at : at + _SIDE_TOKENS])[:_SIDE_CHARACTERS],
        )
        if finding.verdict.message is not None:
            divergence.message = finding.verdict.message
        return divergence

    def _text(self, tokens: TokenArray) -> str:
        # Either end may cut a character in two.
        return self._detokenizer.decode(tokens.tolist()).strip("\N{REPLACEMENT CHARACTER}")

    # The API's own diagnostics

    def diagnostics(self, lookup: Lookup, request: RequestFacts) -> pb.Diagnostics:
        """How the prompt differs from the one whose response the client names."""
        try:
            return self._diagnostics(lookup, request)
        except Exception as error:  # noqa: BLE001 - as in `explain`
            _report(error, request)
            return _diagnostics(pb.CACHE_MISS_REASON_UNAVAILABLE, 0)

    def _diagnostics(self, lookup: Lookup, request: RequestFacts) -> pb.Diagnostics:
        if not request.previous_message_id:
            return pb.Diagnostics()
        kept = self._memories.by_message(request.previous_message_id)
        if kept is None:
            return self._not_found(lookup)
        shared = common_prefix(kept.tokens, lookup.prompt)
        if shared == min(len(kept.tokens), len(lookup.prompt)):
            return pb.Diagnostics()
        cause = self._diverged(kept, lookup, request, shared).cause
        reason = _REASONS.get(cause, pb.CACHE_MISS_REASON_UNAVAILABLE)
        missed = min(len(kept.tokens), len(lookup.prompt)) - shared
        return _diagnostics(reason, missed)

    def _not_found(self, lookup: Lookup) -> pb.Diagnostics:
        if self._notes.was_with_another_model(lookup.key.session_id):
            missed = len(lookup.prompt) - lookup.reused
            return _diagnostics(pb.CACHE_MISS_REASON_MODEL_CHANGED, missed)
        return _diagnostics(pb.CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND, 0)


class RequestExplainer:
    """Follows one request as it runs (`engine.job.RequestListener`)."""

    def __init__(self, explainer: Explainer, facts: RequestFacts) -> None:
        self.cause = pb.REUSE_CAUSE_UNSPECIFIED
        self.diagnostics: pb.Diagnostics | None = None
        self._explainer = explainer
        self._facts = facts
        self._unexplained: tuple[Lookup, _Scene] | None = None

    def started(self, lookup: Lookup) -> None:
        self._unexplained = lookup, self._explainer.scene(lookup)
        if self._facts.wants_diagnostics:
            self.diagnostics = self._explainer.diagnostics(lookup, self._facts)

    def explain(self) -> None:
        if self._unexplained is not None:
            lookup, scene = self._unexplained
            self._unexplained = None
            self.cause = self._explainer.explain(lookup, scene, self._facts)

    def emitted(self, event: pb.GenerateResponse) -> None:
        self._facts.answer.add(event)

    def kept(self, key: LineageKey, tokens: TokenArray, tip: Node) -> None:
        self._explainer.remember(key, tokens, tip, self._facts)


def _report(error: Exception, request: RequestFacts) -> None:
    # Its message may quote a prompt, so only the place where it was raised is logged.
    at = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "request could not be explained",
        request_id=request.request_id,
        error=type(error).__name__,
        where=f"{Path(at.filename).name}:{at.lineno} {at.name}",
    )


def _diagnostics(reason: pb.CacheMissReason, missed: int) -> pb.Diagnostics:
    return pb.Diagnostics(cache_miss_reason=reason, cache_missed_input_tokens=missed)


def _restored(lookup: Lookup) -> Remembered | None:
    """A conversation that is no longer remembered, rebuilt from the tree."""
    same = [
        lineage
        for lineage in lookup.lineages
        if lineage.tip is not None
        and lineage.key.session_id == lookup.key.session_id
        and lineage.key.agent_id == lookup.key.agent_id
    ]
    if not same:
        return None
    latest = max(same, key=lambda lineage: lineage.last_use)
    return Remembered(latest.key, Trail(latest.tip))


def _rejoins(lookup: Lookup, scene: _Scene, shared: int, request: RequestFacts) -> bool:
    """Whether another branch was followed to its end, or for at least a whole message."""
    if scene.extends_branch and shared < lookup.match.length:
        return True
    beyond = max(shared, lookup.stable_tokens)
    return any(beyond < mark <= lookup.reused for mark in request.marks)
