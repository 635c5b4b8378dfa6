"""Answers put back into later prompts in the very tokens that the model wrote.

A template writes an answer in its own way when the client sends it back: JSON spaced otherwise,
keys in another order, thinking left out. The prompt then leaves the cached tokens there. With
splicing, a prompt goes on from the tokens of the prompt before it and the answer to it, and the
template's own rendering follows from behind that answer.

Invariants:
- An answer is spliced only where the conversation is, message by message and byte by byte as the
  template takes them, the one that was answered, followed by what was answered.
- What lies behind the last spliced answer is the template's rendering, token by token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from anyclaude.mlx.prompt.cuts import Cut
from anyclaude.mlx.prompt.pieces import Encoded
from anyclaude.mlx.prompt.render_cache import Lately, Made
from anyclaude.mlx.tokens import TokenArray


@dataclass(frozen=True)
class _Point:
    """The end of a kept answer."""

    # Messages up to it.
    messages: int
    # Ends of messages before it in the template's rendering.
    ends: int
    # How that rendering opens an answer.
    header: str
    # Tokens up to it.
    tokens: int


@dataclass(frozen=True, eq=False)
class _Written:
    """A conversation's tokens as they were computed, up to its latest answer."""

    token_ids: TokenArray
    marks: tuple[int, ...]
    points: tuple[_Point, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """A prompt, and where the answer to it will stand in the next one."""

    token_ids: TokenArray
    marks: tuple[int, ...]
    # What the conversation shares with all that have the same tools and instructions.
    start: object
    # Its messages, as `exact_bytes`.
    items: list[bytes]
    points: tuple[_Point, ...]
    ends: int
    header: str


class SplicedTurns:
    """The answers that are kept; safe between threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._kept: Lately[_Written] = Lately(limit_bytes)

    def place(
        self,
        start: object,
        items: list[bytes],
        encoded: Encoded,
        cuts: Sequence[Cut],
        marks: tuple[int, ...],
        stable_tokens: int,
    ) -> Place:
        """The prompt in the tokens that were computed, as far as they are known.

        Args:
            start: what the conversation shares with others.
            items: its messages, as `exact_bytes`.
            encoded: as the template writes it.
            cuts: all ends of messages therein.
            marks, stable_tokens: as of the `Prompt` that would be without splicing.
        """
        header = _first_line(encoded.text[cuts[-1].characters :]) if cuts else ""
        rendered = Place(
            encoded.token_ids, marks, start, items, points=(), ends=len(cuts), header=header
        )
        common, made = self._kept.find(start, items)
        points = made.value.points if made else ()
        reached = tuple(point for point in points if point.messages <= common)
        if made is None or not reached:
            return rendered
        last, written = reached[-1], made.value
        behind = _behind(last, written, encoded, cuts)
        alike = np.array_equal(written.token_ids[:stable_tokens], encoded.token_ids[:stable_tokens])
        # The template may have written another date into the instructions.
        if behind is None or not alike:
            return rendered
        before, shift = written.token_ids[: last.tokens], last.tokens - behind
        kept = (mark for mark in written.marks if mark <= last.tokens)
        moved = (mark + shift for mark in marks if mark > behind)
        return replace(
            rendered,
            token_ids=np.concatenate([before, encoded.token_ids[behind:]]),
            marks=(*kept, *moved),
            points=reached,
        )

    def keep(self, place: Place, generated: TokenArray, answer: bytes) -> None:
        """Keeps an answer.

        Args:
            place: where it stands.
            generated: its tokens, the last of which ends it.
            answer: the message it comes back as, as `exact_bytes`.
        """
        if not place.header:
            # Nothing to know its place in a later rendering by.
            return
        token_ids = np.concatenate([place.token_ids, generated])
        items = [*place.items, answer]
        point = _Point(len(items), place.ends, place.header, len(token_ids))
        written = _Written(token_ids, place.marks, (*place.points, point))
        nbytes = token_ids.nbytes + sum(map(len, items))
        self._kept.add(Made(place.start, items, written, nbytes))


def _behind(point: _Point, written: _Written, encoded: Encoded, cuts: Sequence[Cut]) -> int | None:
    """Tokens of the rendering up to the end of the answer that `point` ends; None if not found."""
    if not 0 < point.ends < len(cuts):
        return None
    first, last = cuts[point.ends - 1], cuts[point.ends]
    if not encoded.text.startswith(point.header, first.characters):
        return None
    rendered = encoded.token_ids[first.tokens : last.tokens]
    ends = np.flatnonzero(rendered == written.token_ids[point.tokens - 1])
    return first.tokens + int(ends[-1]) + 1 if len(ends) else None


def _first_line(text: str) -> str:
    return text[: text.find("\n") + 1] or text
