"""Explains each request: what was reused, from where, and why no more.

Every cause follows from what is stored: the tokens of a conversation's latest request, both
requests as they came, and what became of the KV. Where nothing stored says why, the cause is
UNKNOWN, which is counted. Explanations hold words of prompts: they are kept in memory only, a
bounded number of them, and leave on demand.

Warm path: one comparison of token arrays and one copy of them; everything else happens only where
a prompt leaves what was kept. Not thread-safe: the MLX thread owns it.
"""

import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from anyclaude.cache.v1 import cache_pb2
from anyclaude.messages.requests import parse_count_tokens_request
from anyclaude.mlx.kv.causes import Cause
from anyclaude.mlx.kv.lineage import Lineage, LineageKey
from anyclaude.mlx.kv.tree import Match, Node
from anyclaude.mlx.kv_explain.diagnose import (
    Came,
    Verdict,
    Voice,
    messages_verdict,
    prefix_verdict,
)
from anyclaude.mlx.kv_explain.notes import Notes
from anyclaude.mlx.kv_explain.remembered import Asked, Memories, Remembered, Trail
from anyclaude.mlx.prompt.summary import PrefixSummary
from anyclaude.mlx.tokens import TokenArray, common_prefix
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

_SIDE_CHARACTERS: Final = 80
# A token is at least a byte, but for a few that say nothing.
_SIDE_TOKENS: Final = 2 * _SIDE_CHARACTERS
_REASONS: Final = {
    Cause.MODEL_CHANGED: pb.CACHE_MISS_REASON_MODEL_CHANGED,
    Cause.INSTRUCTIONS_CHANGED: pb.CACHE_MISS_REASON_SYSTEM_CHANGED,
    Cause.TOOLS_CHANGED: pb.CACHE_MISS_REASON_TOOLS_CHANGED,
    Cause.EDITED_HISTORY: pb.CACHE_MISS_REASON_MESSAGES_CHANGED,
}


@dataclass(frozen=True)
class ExplainLimits:
    """How much is remembered, and where notes outlive the worker."""

    max_conversations: int = 256
    memory_bytes: int = 64 * 1024 * 1024
    max_explanations: int = 256
    notes_folder: Path | None = None


@dataclass(frozen=True)
class Lookup:
    """What the store found for a prompt."""

    key: LineageKey
    prompt: TokenArray
    stable_tokens: int
    # What of the prompt is in the tree, usable or not.
    match: Match
    reused: int
    from_live: bool
    disk_tokens: int
    keep: bool
    lineages: Collection[Lineage] = ()


@dataclass(frozen=True)
class _Finding:
    """A verdict, and the other prompt as far as it is known."""

    verdict: Verdict
    # Tokens shared with it, and how it goes on; None where there is no other or it just ended.
    offset: int = 0
    other: TokenArray | None = None
    lost_time: float | None = None


@dataclass(eq=False)
class Explainer:
    voice: Voice | None = None
    limits: ExplainLimits = ExplainLimits()
    model: str = ""
    clock: Callable[[], float] = time.time
    _explained: OrderedDict[str, cache_pb2.Explanation] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        limits = self.limits
        self._memories = Memories(limits.max_conversations, limits.memory_bytes, clock=self.clock)
        self._notes = Notes(limits.notes_folder, self.model)

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        return self._memories.nbytes

    def get(self, request_id: str) -> cache_pb2.Explanation | None:
        return self._explained.get(request_id)

    # What the store tells

    def restored(self, nodes: Iterable[Node], lineages: Iterable[Lineage]) -> None:
        """What was there at the start."""
        for node in nodes:
            if node.stable_digest:
                self._memories.put_prefix(node)
        for lineage in sorted(lineages, key=lambda lineage: lineage.last_use):
            self._memories.put(Remembered(lineage.key, Trail(lineage.tip)))

    def left(self, gone: Collection[Node], cause: Cause) -> None:
        """Nodes left the tree."""
        self._memories.left(frozenset(gone), cause)

    def remember(self, key: LineageKey, tokens: TokenArray, tip: Node, asked: Asked | None) -> None:
        """A request is over; what it computed is in the tree."""
        self._memories.put(Remembered(key, Trail(tip), tokens.copy(), asked))
        self._notes.put_session(key.session_id)
        for node in tip.path():
            if node.stable_digest == key.stable_digest:
                self._memories.put_prefix(node)

    # One request

    def explain(self, lookup: Lookup, asked: Asked | None) -> Cause:
        """Says why the prompt is reused as far as it is, and keeps the whole explanation.

        An error in here costs the explanation, which is then UNKNOWN, and never the answer.
        """
        try:
            return self._explain(lookup, asked)
        except Exception as error:  # noqa: BLE001 - see above
            _report(error, asked)
            return Cause.UNKNOWN

    def _explain(self, lookup: Lookup, asked: Asked | None) -> Cause:
        if asked is not None and lookup.keep:
            self._note_prefix(lookup, asked)
        finding = self._find(lookup, asked)
        if asked is not None and asked.request_id:
            self._explained[asked.request_id] = self._explanation(lookup, asked, finding)
            if len(self._explained) > self.limits.max_explanations:
                self._explained.popitem(last=False)
        return finding.verdict.cause

    def _note_prefix(self, lookup: Lookup, asked: Asked) -> None:
        digest = lookup.key.stable_digest
        if lookup.stable_tokens and self._notes.prefix(digest) is None:
            facts = PrefixSummary.of(parse_count_tokens_request(asked.body))
            self._notes.put_prefix(digest, facts)

    def _find(self, lookup: Lookup, asked: Asked | None) -> _Finding:
        if not lookup.keep:
            return _Finding(Verdict(Cause.NOT_KEPT))
        kept = self._memories.get(lookup.key) or _restored(lookup)
        if kept is None:
            return self._new_conversation(lookup, asked)
        shared = common_prefix(kept.tokens, lookup.prompt)
        goal = min(shared, len(lookup.prompt) - 1)
        ended = shared == min(len(kept.tokens), len(lookup.prompt))
        if lookup.reused < goal and lookup.match.length < goal:
            return self._lost(kept.trail, lookup, kept.tokens)
        if ended:
            cause = Cause.EXTENDED if lookup.reused >= goal else Cause.CHECKPOINT
            return _Finding(Verdict(cause))
        if _rejoins(lookup, shared, asked):
            return _Finding(Verdict(Cause.REJOINED), shared, kept.tokens)
        return _Finding(self._diverged(kept, lookup, asked, shared), shared, kept.tokens)

    def _new_conversation(self, lookup: Lookup, asked: Asked | None) -> _Finding:
        trail = self._memories.prefix(lookup.key.stable_digest)
        stable, known = lookup.stable_tokens, lookup.match.length
        if self._notes.was_with_another_model(lookup.key.session_id):
            return _Finding(Verdict(Cause.MODEL_CHANGED))
        if trail is not None and lookup.reused < stable:
            if known < stable:
                return self._lost(trail, lookup, None)
            return _Finding(Verdict(Cause.CHECKPOINT))
        if not lookup.reused:
            return _Finding(Verdict(Cause.FIRST_SIGHT))
        return self._forked(lookup, asked)

    def _lost(self, trail: Trail, lookup: Lookup, other: TokenArray | None) -> _Finding:
        """KV that was there is not: what became of it is on its trail."""
        at = lookup.reused
        if trail.fate is None:
            return _Finding(Verdict(Cause.UNKNOWN), at, other)
        return _Finding(Verdict(trail.fate.cause), at, other, trail.fate.time)

    def _forked(self, lookup: Lookup, asked: Asked | None) -> _Finding:
        """A new conversation beside one that is kept: where they part, and over what."""
        nodes, length = lookup.match.nodes, lookup.match.length
        neighbour = nodes[-1] if nodes and length < nodes[-1].end else None
        if neighbour is None:
            return _Finding(Verdict(Cause.NEW_LINEAGE))
        other = neighbour.token_ids()
        digest = neighbour.stable_digest
        verdict = Verdict(Cause.NEW_LINEAGE)
        if digest and asked is not None and self.voice is not None:
            came = self._notes.prefix(lookup.key.stable_digest)
            kept = self._notes.prefix(digest)
            if came is not None and kept is not None:
                why = prefix_verdict(kept, came, _came(lookup, asked), self.voice)
                verdict = Verdict(Cause.NEW_LINEAGE, None, why.tools, why.instructions)
        return _Finding(verdict, length, other)

    def _diverged(
        self, kept: Remembered, lookup: Lookup, asked: Asked | None, shared: int
    ) -> Verdict:
        if asked is None or self.voice is None:
            return Verdict(Cause.EDITED_HISTORY)
        came = _came(lookup, asked)
        if kept.key.stable_digest != lookup.key.stable_digest:
            facts = PrefixSummary.of(parse_count_tokens_request(asked.body))
            known = self._notes.prefix(kept.key.stable_digest)
            return prefix_verdict(known, facts, came, self.voice)
        return messages_verdict(kept, came, shared, self.voice)

    def _explanation(
        self, lookup: Lookup, asked: Asked, finding: _Finding
    ) -> cache_pb2.Explanation:
        verdict, reused = finding.verdict, lookup.reused
        live = reused if lookup.from_live else 0
        disk = 0 if live else min(lookup.disk_tokens, reused)
        explanation = cache_pb2.Explanation(
            request_id=asked.request_id,
            session_id=lookup.key.session_id,
            agent_id=lookup.key.agent_id,
            cause=verdict.cause.value,
            prompt_tokens=len(lookup.prompt),
            reused_live_tokens=live,
            reused_memory_tokens=reused - live - disk,
            reused_disk_tokens=disk,
            computed_tokens=len(lookup.prompt) - reused,
            tools=[
                cache_pb2.ToolChange(name=change.name, kind=change.kind.value, fields=change.fields)
                for change in verdict.tools
            ],
            instructions=verdict.instructions,
        )
        explanation.time.FromNanoseconds(int(self.clock() * 1e9))
        if finding.lost_time is not None:
            explanation.lost_time.FromNanoseconds(int(finding.lost_time * 1e9))
        if finding.other is not None and self.voice is not None:
            explanation.divergence.CopyFrom(self._divergence(lookup, finding, self.voice))
        return explanation

    def _divergence(self, lookup: Lookup, finding: _Finding, voice: Voice) -> cache_pb2.Divergence:
        assert finding.other is not None
        at = finding.offset
        divergence = cache_pb2.Divergence(
            offset=at,
            before=_text(voice, lookup.prompt[max(0, at - _SIDE_TOKENS) : at])[-_SIDE_CHARACTERS:],
            kept=_text(voice, finding.other[at : at + _SIDE_TOKENS])[:_SIDE_CHARACTERS],
            came=_text(voice, lookup.prompt[at : at + _SIDE_TOKENS])[:_SIDE_CHARACTERS],
        )
        if finding.verdict.message is not None:
            divergence.message = finding.verdict.message
        return divergence

    # The API's own diagnostics

    def diagnostics(self, lookup: Lookup, asked: Asked) -> pb.Diagnostics:
        """How the prompt differs from the one whose answer the client names."""
        try:
            return self._diagnostics(lookup, asked)
        except Exception as error:  # noqa: BLE001 - as in `explain`
            _report(error, asked)
            return _diagnostics(pb.CACHE_MISS_REASON_UNAVAILABLE, 0)

    def _diagnostics(self, lookup: Lookup, asked: Asked) -> pb.Diagnostics:
        if not asked.previous_message_id:
            return pb.Diagnostics()
        kept = self._memories.by_message(asked.previous_message_id)
        if kept is None:
            return self._not_found(lookup)
        shared = common_prefix(kept.tokens, lookup.prompt)
        if shared == min(len(kept.tokens), len(lookup.prompt)):
            return pb.Diagnostics()
        cause = self._diverged(kept, lookup, asked, shared).cause
        reason = _REASONS.get(cause, pb.CACHE_MISS_REASON_UNAVAILABLE)
        missed = min(len(kept.tokens), len(lookup.prompt)) - shared
        return _diagnostics(reason, missed)

    def _not_found(self, lookup: Lookup) -> pb.Diagnostics:
        if self._notes.was_with_another_model(lookup.key.session_id):
            missed = len(lookup.prompt) - lookup.reused
            return _diagnostics(pb.CACHE_MISS_REASON_MODEL_CHANGED, missed)
        return _diagnostics(pb.CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND, 0)


def _report(error: Exception, asked: Asked | None) -> None:
    # Its message may quote a prompt: where it was raised has to do.
    at = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "request could not be explained",
        request_id=asked.request_id if asked else "",
        error=type(error).__name__,
        where=f"{Path(at.filename).name}:{at.lineno} {at.name}",
    )


def _diagnostics(reason: pb.CacheMissReason, missed: int) -> pb.Diagnostics:
    return pb.Diagnostics(cache_miss_reason=reason, cache_missed_input_tokens=missed)


def _came(lookup: Lookup, asked: Asked) -> Came:
    return Came(lookup.prompt, lookup.stable_tokens, asked)


def _restored(lookup: Lookup) -> Remembered | None:
    """A conversation that is remembered no more, as the tree still has it."""
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


def _rejoins(lookup: Lookup, shared: int, asked: Asked | None) -> bool:
    """Whether another branch was followed to its end, or over a whole message at least."""
    nodes = lookup.match.nodes
    if nodes and not nodes[-1].children and shared < lookup.match.length == nodes[-1].end:
        return True
    beyond = max(shared, lookup.stable_tokens)
    marks = asked.marks if asked is not None else (beyond + 1,)
    return any(beyond < mark <= lookup.reused for mark in marks)


def _text(voice: Voice, tokens: TokenArray) -> str:
    # A character may be cut in two at either end.
    return voice.decode(tokens.tolist()).strip("\N{REPLACEMENT CHARACTER}")
