"""Why one prompt diverges from another, decided from both requests and their renderings.

Tokens show where two prompts diverge, the requests show why. If their tools differ, the cause is
the tools, and so on. If both requests say the same, the template rendered it in another way.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from anyclaude.cache.v1 import cache_pb2
from anyclaude.messages.requests import CountTokensRequest, parse_count_tokens_request
from anyclaude.mlx.kv.lineage import Lookup
from anyclaude.mlx.kv_explain.remembered import Remembered, RequestFacts
from anyclaude.mlx.prompt.canonical import canonicalise
from anyclaude.mlx.prompt.summary import (
    MessageSummary,
    PrefixSummary,
    instruction_changes,
    tool_changes,
)
from anyclaude.mlx.tokens import TokenArray
from anyclaude.worker.v1 import worker_pb2 as pb

Decode = Callable[[Sequence[int]], str]

# Only so much of a turn's rendering is compared.
_TURN_TOKENS: Final = 4096
# The beginning of a text that is enough to recognise it.
_PIECE_CHARACTERS: Final = 24


@dataclass(frozen=True)
class Detokenizer:
    """Turns tokens into text, and knows how the model opens its thinking, if it does."""

    decode: Decode
    think_start: str = ""


@dataclass(frozen=True)
class Verdict:
    cause: pb.ReuseCause
    # Index of the message where the two diverge, if it is known and there is one.
    message: int | None = None
    tools: tuple[cache_pb2.ToolChange, ...] = ()
    instructions: tuple[int, ...] = ()


def prefix_verdict(
    kept: PrefixSummary | None,
    new: PrefixSummary,
    lookup: Lookup,
    request: RequestFacts,
    detokenizer: Detokenizer,
) -> Verdict:
    """Why two prompts diverge within tools and instructions."""
    if kept is None:
        return Verdict(pb.REUSE_CAUSE_FORGOTTEN)
    tools, instructions = tool_changes(kept, new), instruction_changes(kept, new)
    if tools and not (instructions and _instructions_lead(lookup, request, detokenizer)):
        return Verdict(pb.REUSE_CAUSE_TOOLS_CHANGED, None, tools, instructions)
    if instructions:
        return Verdict(pb.REUSE_CAUSE_INSTRUCTIONS_CHANGED, None, tools, instructions)
    if kept.thinking != new.thinking:
        return Verdict(pb.REUSE_CAUSE_THINKING_CHANGED)
    return Verdict(pb.REUSE_CAUSE_TEMPLATE_VARIED)


def _instructions_lead(lookup: Lookup, request: RequestFacts, detokenizer: Detokenizer) -> bool:
    """Whether the template writes instructions ahead of tools."""
    conversation = canonicalise(parse_count_tokens_request(request.body))
    text = detokenizer.decode(lookup.prompt[: lookup.stable_tokens].tolist())
    names = [tool["function"]["name"] for tool in conversation.tools]
    instructions = conversation.leading[0] if conversation.leading else ""
    found = text.find(_piece(instructions))
    return bool(instructions) and 0 <= found < text.find(names[0] if names else "")


def messages_verdict(
    kept: Remembered,
    lookup: Lookup,
    request: RequestFacts,
    offset: int,
    detokenizer: Detokenizer,
) -> Verdict:
    """Why two prompts with the same tools and instructions diverge at `offset`."""
    if kept.request is None:
        return Verdict(pb.REUSE_CAUSE_FORGOTTEN)
    turn = _Turn.at(offset, kept, lookup.prompt, request, detokenizer)
    old, new = map(parse_count_tokens_request, (kept.request.body, request.body))
    before, now = [*_messages(old), kept.request.answer.message()], _messages(new)
    answer = len(before) - 1
    if now == before[:-1] and old.thinking != new.thinking:
        return Verdict(pb.REUSE_CAUSE_THINKING_CHANGED)
    edited = _first_difference(before, now)
    if edited is not None and turn.shows(before[edited : edited + 1] + now[edited : edited + 1]):
        return Verdict(pb.REUSE_CAUSE_EDITED_HISTORY, edited)
    return _rendered_differently(turn, now, answer)


def _messages(request: CountTokensRequest) -> list[MessageSummary]:
    return [MessageSummary.of(message) for message in request.messages]


def _first_difference(before: list[MessageSummary], now: list[MessageSummary]) -> int | None:
    pairs = enumerate(zip(before, now, strict=False))
    found = next((index for index, (old, new) in pairs if old != new), None)
    if found is None and len(now) < len(before):
        # The prompt was cut short. A repeated request continues where its answer began; no edit.
        return len(now) if len(now) < len(before) - 1 else None
    return found


def _rendered_differently(turn: "_Turn", now: list[MessageSummary], answer: int) -> Verdict:
    is_answer = turn.is_last_of_kept and answer < len(now)
    message = answer if is_answer else turn.index_in(now)
    if turn.lost_thinking(now[message] if message is not None else None):
        return Verdict(pb.REUSE_CAUSE_THINKING_DROPPED, message)
    cause = (
        pb.REUSE_CAUSE_ANSWER_RENDERED_DIFFERENTLY if is_answer else pb.REUSE_CAUSE_TEMPLATE_VARIED
    )
    return Verdict(cause, message)


@dataclass(frozen=True)
class _Turn:
    """The turn in which two prompts diverge, as each renders it."""

    kept: str
    new: str
    think_start: str
    # The last turn of the kept prompt, which the model's answer continued.
    is_last_of_kept: bool

    @classmethod
    def at(
        cls,
        offset: int,
        kept: Remembered,
        prompt: TokenArray,
        request: RequestFacts,
        detokenizer: Detokenizer,
    ) -> "_Turn":
        assert kept.request is not None
        marks = kept.request.marks
        begin, new_end = _bounds(offset, request.marks, prompt)
        _, kept_end = _bounds(offset, marks, kept.tokens)
        return cls(
            detokenizer.decode(_part(kept.tokens, begin, kept_end)),
            detokenizer.decode(_part(prompt, begin, new_end)),
            detokenizer.think_start,
            offset >= max(marks, default=kept.request.prompt_tokens),
        )

    def shows(self, messages: Sequence[MessageSummary]) -> bool:
        """Whether the turn contains text of one of these messages."""
        pieces = [_piece(text) for message in messages for text in message.texts()]
        known = [piece for piece in pieces if piece]
        return not known or any(piece in self.kept or piece in self.new for piece in known)

    def index_in(self, messages: Sequence[MessageSummary]) -> int | None:
        found = (i for i, message in enumerate(messages) if self.shows([message]))
        return next(found, None)

    def lost_thinking(self, message: MessageSummary | None) -> bool:
        start = self.think_start
        if start and self.kept.count(start) > self.new.count(start):
            return True
        thought = _piece(message.thinking) if message else ""
        return bool(thought) and thought in self.kept and thought not in self.new


def _bounds(offset: int, marks: Sequence[int], tokens: TokenArray) -> tuple[int, int]:
    """The marks around a token."""
    turns: Iterator[tuple[int, int]] = pairwise((0, *marks, len(tokens)))
    return next(
        ((begin, end) for begin, end in turns if begin <= offset < end),
        (max((mark for mark in marks if mark <= offset), default=0), len(tokens)),
    )


def _part(tokens: TokenArray, begin: int, end: int) -> list[int]:
    part: list[int] = tokens[begin : min(end, begin + _TURN_TOKENS)].tolist()
    return part


def _piece(text: str) -> str:
    return text.strip()[:_PIECE_CHARACTERS].rstrip()
