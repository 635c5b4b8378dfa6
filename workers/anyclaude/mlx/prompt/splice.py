"""Keeps answers in later prompts in exactly the tokens that the model wrote.

When a client sends an answer back, the template may render it in other tokens: JSON with other
spaces, keys in another order, thinking left out. The prompt then differs from the cached tokens at
the answer. With splicing, a prompt begins with the tokens of the previous prompt and its answer,
and continues after that answer with the tokens that the template renders.

Invariants:
- An answer is spliced only if all messages up to it are equal, as exact bytes in the template's
  dialect, to the messages that were answered, and the answer itself is equal to what was sent.
- The tokens after the last spliced answer are exactly those that the template renders.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from anyclaude.mlx.prompt.cuts import Cut
from anyclaude.mlx.prompt.pieces import Encoded
from anyclaude.mlx.prompt.render_cache import Entry, RenderCache
from anyclaude.mlx.tokens import TokenArray


@dataclass(frozen=True)
class _AnswerEnd:
    """The end of a kept answer."""

    # The number of messages up to it.
    messages: int
    # The number of message ends before it in the template's rendering.
    ends: int
    # The text with which the template opens the answer.
    header: str
    # The number of tokens up to it.
    tokens: int
    # Whether its last token ends it. Otherwise the next turn's first token does.
    is_closed: bool


@dataclass(frozen=True, eq=False)
class _Computed:
    """The tokens of a conversation as they were computed, up to the end of its latest answer."""

    token_ids: TokenArray
    cut_points: tuple[int, ...]
    answers: tuple[_AnswerEnd, ...]


@dataclass(frozen=True, eq=False)
class AnswerPosition:
    """A prompt, and the position that its answer will have in later prompts."""

    token_ids: TokenArray
    cut_points: tuple[int, ...]
    # The part shared with all conversations that have the same tools and instructions.
    start: object
    # The messages as `exact_bytes`.
    items: list[bytes]
    # The spliced answers that the prompt contains.
    answers: tuple[_AnswerEnd, ...]
    # As in `_AnswerEnd`, for the answer to come.
    ends: int
    header: str


class SplicedTurns:
    """The kept answers of all conversations. Safe to share between threads."""

    def __init__(self, limit_bytes: int, openers: Collection[int] = ()) -> None:
        """
        Args:
            limit_bytes: for the answers that are kept.
            openers: the tokens that begin a turn and end none.
        """
        self._openers = openers
        self._cache: RenderCache[_Computed] = RenderCache(limit_bytes)

    def position(
        self,
        start: object,
        items: list[bytes],
        encoded: Encoded,
        cuts: Sequence[Cut],
        cut_points: tuple[int, ...],
        stable_tokens: int,
    ) -> AnswerPosition:
        """The prompt, spliced as far as its answers were kept.

        Args:
            start: the part that the conversation shares with others.
            items: its messages as `exact_bytes`.
            encoded: the prompt as the template renders it.
            cuts: all ends of messages in `encoded`.
            cut_points, stable_tokens: those of the prompt without splicing.
        """
        header = _first_line(encoded.text[cuts[-1].characters :]) if cuts else ""
        rendered = AnswerPosition(
            encoded.token_ids, cut_points, start, items, answers=(), ends=len(cuts), header=header
        )
        common, entry = self._cache.find(start, items)
        if entry is None:
            return rendered
        computed = entry.value
        answers = tuple(answer for answer in computed.answers if answer.messages <= common)
        # The template may have written another date into the instructions.
        stable = encoded.token_ids[:stable_tokens]
        if not answers or not np.array_equal(computed.token_ids[:stable_tokens], stable):
            return rendered
        last = answers[-1]
        rendered_end = self._rendered_end(last, computed, encoded, cuts)
        if rendered_end is None:
            return rendered
        shift = last.tokens - rendered_end
        kept = (cut for cut in computed.cut_points if cut <= last.tokens)
        moved = (cut + shift for cut in cut_points if cut > rendered_end)
        rest = encoded.token_ids[rendered_end:]
        return replace(
            rendered,
            token_ids=np.concatenate([computed.token_ids[: last.tokens], rest]),
            cut_points=(*kept, *moved),
            answers=answers,
        )

    def keep(self, position: AnswerPosition, generated: TokenArray, answer: bytes) -> None:
        """Keeps an answer.

        Args:
            position: its position.
            generated: its tokens, of which the last one ends it.
            answer: the message that the client will send back, as `exact_bytes`.
        """
        if not position.ends:
            # The answer could not be found in a later rendering.
            return
        is_closed = int(generated[-1]) not in self._openers
        if not is_closed:
            generated = generated[:-1]
        token_ids = np.concatenate([position.token_ids, generated])
        items = [*position.items, answer]
        end = _AnswerEnd(len(items), position.ends, position.header, len(token_ids), is_closed)
        computed = _Computed(token_ids, position.cut_points, (*position.answers, end))
        nbytes = token_ids.nbytes + sum(map(len, items))
        self._cache.add(Entry(position.start, items, computed, nbytes))

    def _rendered_end(
        self, answer: _AnswerEnd, computed: _Computed, encoded: Encoded, cuts: Sequence[Cut]
    ) -> int | None:
        """The token offset at which the answer ends in `encoded`; None if it is not found."""
        if not 0 < answer.ends < len(cuts):
            return None
        first, last = cuts[answer.ends - 1], cuts[answer.ends]
        if not encoded.text.startswith(answer.header, first.characters):
            return None
        if not answer.is_closed:
            return last.tokens if self._opens_at(encoded, last.tokens) else None
        rendered = encoded.token_ids[first.tokens : last.tokens]
        ends = np.flatnonzero(rendered == computed.token_ids[answer.tokens - 1])
        return first.tokens + int(ends[-1]) + 1 if len(ends) else None

    def _opens_at(self, encoded: Encoded, token: int) -> bool:
        return token < len(encoded.token_ids) and int(encoded.token_ids[token]) in self._openers


def _first_line(text: str) -> str:
    return text[: text.find("\n") + 1] or text
